"""Kernels, root file system, box and packages for machines."""
