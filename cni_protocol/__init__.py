"""What the CNI specification defines, shared by both plugins: requests, results, errors, versions, delegation."""
