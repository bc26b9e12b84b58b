"""Kernels, root file system, box and packages: all that a machine boots and runs."""
