"""The kernel matrix: the suite in one virtual machine per kernel, and a report of the differences.

It uses the suite through the command line and JSON files only.
"""
