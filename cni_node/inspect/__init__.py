"""`pycni inspect`: this node's network as it is, from the kernel and from files; nothing is changed."""
