"""Layer archives applied: to an overlay upper directory, a view, or a plain directory.

`unpack` reads the members and tells markers from content; a target puts them on disk.
"""
