"""Clusters: what gives the kubernetes platform its kubeconfig."""
