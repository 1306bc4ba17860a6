"""When to tell the runtime that the node is ready: a trial pod, a ping of the peers, the runtime's file."""
