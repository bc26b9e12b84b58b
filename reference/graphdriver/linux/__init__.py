"""The system calls that the standard library does not offer, typed, errno intact."""
