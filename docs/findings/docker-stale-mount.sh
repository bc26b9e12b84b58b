#!/bin/sh
# The daemon is killed while a layer is mounted. The next daemon gets the layer, puts it, removes it,
# and creates another of the same id. Needs root and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
gd overlay2 "$home" create base -- create c base -- get c > /dev/null
view=$(gd overlay2 "$home" get c -- put c -- remove c -- create c base -- get c | tail -n 1)
echo "expected: get returns an existing directory"
if [ -d "$view" ]; then
    echo "actual:   get returns an existing directory"
else
    echo "actual:   get returns ${view#"$top"/}, which does not exist, without an error"
fi
