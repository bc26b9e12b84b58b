"""The kernel matrix: the suite in one virtual machine per kernel, and a report of what changed.

It talks to the suite through the command line and JSON files only.
"""
