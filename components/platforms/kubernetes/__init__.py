"""The kubernetes platform: services are Deployments and StatefulSets in a namespace of the lab's own."""
