"""Machines of each engine: they boot, run a plan, and are destroyed."""
