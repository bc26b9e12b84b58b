"""The part that runs inside a machine: the cells of its plan, and the probes of its kernel."""
