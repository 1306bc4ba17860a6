"""`pycni why`: whether one can reach another from this node, by which way, and what stops it."""
