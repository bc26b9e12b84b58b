"""Unpacking layer archives: to an overlay upper directory, a view, or a plain directory.

`unpack` reads the members and separates markers from content; a target writes them to disk.
"""
