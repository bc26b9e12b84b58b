"""The machine that the suite runs on: facts about it, namespaces, mounts, system calls."""
