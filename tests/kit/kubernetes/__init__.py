"""A Kubernetes cluster in namespaces: its programs, its machines, and what is asked of it."""
