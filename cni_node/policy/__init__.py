"""NetworkPolicy on a node: what the cluster allows, as values, and the same in the kernel."""
