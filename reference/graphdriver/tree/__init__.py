"""Trees on disk: create, copy, remove and walk inodes with all their attributes.

`inodes` creates them, `removal` removes them, `copy` copies a tree; `resolve` finds a directory
without leaving its root, `descent` walks trees of any depth; `xattrs` reads attributes, `data`
finds a file's data between its holes.
"""
