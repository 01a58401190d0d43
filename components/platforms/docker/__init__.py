"""The docker platform: services are containers on a network of the lab's own."""
