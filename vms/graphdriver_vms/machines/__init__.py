"""Machines of each engine: how they come up, run a plan, and go."""
