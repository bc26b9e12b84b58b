"""The on-disk format of overlayfs, and its merging of directories.

`marks` are whiteouts and its own xattrs; `lowers` is the merged view without a mount.
"""
