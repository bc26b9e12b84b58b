#!/bin/sh
# Diff of a layer that does not exist. Needs root and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
echo "expected: an error"
if gd overlay2 "$top/home" diff nope > "$top/archive" 2> "$top/log"; then
    echo "actual:   success, with $(stat -c %s "$top/archive") bytes of archive: no members"
else
    echo "actual:   an error"
fi
