"""A black-box conformance suite for CNI plugins: any bridge and any IPAM plugin, by environment, stdin and kernel.

Each case is a function with a number and a sentence of what the specification asks; see cases.py for the list of the
modules that have them. `scripts/conformance` runs them without pytest, test_conformance.py with it.
"""
