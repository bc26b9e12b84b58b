"""An importable conformance suite for layered-storage drivers.

Of `graphdriver` it imports the contract and the errors only: what judges a driver shares no code
with it.
"""
