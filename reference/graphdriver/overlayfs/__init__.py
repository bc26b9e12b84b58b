"""What overlayfs writes into its directories, and how it merges them.

`marks` are whiteouts and the attributes of its own; `lowers` is the merged view without a mount.
"""
