"""The kernel matrix: runs the suite in one virtual machine per kernel and collects the results.

It talks to the suite through the command line and JSON files only.
"""
