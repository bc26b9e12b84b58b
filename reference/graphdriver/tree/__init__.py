"""Trees on disk: inodes with all their attributes, and ways into, through and out of directories.

`inodes` makes them, `removal` removes them, `copy` copies a tree; `resolve` finds a directory
without leaving its root, `descent` walks trees of any depth; `xattrs` reads attributes, `data`
finds a file's data between its holes.
"""
