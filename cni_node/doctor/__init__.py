"""`pycni doctor`: the faults of a node that can be read from the node itself, and what to do about each."""
