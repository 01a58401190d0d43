"""Engines: what applies the Pulumi program of a lab."""
