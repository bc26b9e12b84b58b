"""The on-disk format of overlayfs, and its merging of directories.

`format` has whiteouts and the overlay xattrs; `lowers` is the merged view without a mount.
"""
