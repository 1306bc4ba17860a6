"""Faults, one at a time, in the executables as they are installed, each on a throw-away host.

- subjects.py: which plugins, on which networks
- points.py: the system calls of a command, as strace saw them; each is a point where a fault can strike
- state.py: what stands on a host, and what is left when nothing should be
- trials.py: a fault at a point, what is done about it afterwards, and the verdict
- campaign.py: all trials of a subject, in parallel, and their table
- document.py: docs/reliability.md

scripts/faults runs all of it, the tests beside this file a sample.
"""
