"""The pytest plugin (thin: imported by every pytest run of the environment)."""
