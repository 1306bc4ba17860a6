"""Stand-ins for slow modules of the standard library, and waiting for locks: what a process of milliseconds needs."""
