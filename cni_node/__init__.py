"""A node of a cluster: setting it up, the agent that keeps its pod network, and the tools that explain it."""
