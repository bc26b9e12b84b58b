#!/bin/sh
# A file with two names in the lower layer is appended to; then the overlay is mounted again.
# Needs root, fuse-overlayfs and /dev/fuse. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cd "$top"
mkdir lower upper work merged
echo one > lower/a
ln lower/a lower/b
fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work merged
echo two >> merged/a
umount merged
fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work merged
echo "expected: one two"
echo "actual:   $(tr '\n\0' ' ?' < merged/a | sed 's/ $//')"
umount merged
