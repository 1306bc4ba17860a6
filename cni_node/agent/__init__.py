"""`pycni agent`: its loop, the stages that it keeps right, and what it says of itself."""
