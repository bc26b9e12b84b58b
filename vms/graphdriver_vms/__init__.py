"""Will run the suite in one virtual machine per kernel; nothing is here yet.

It is to talk to the suite through the command line and JSON files only.
"""
