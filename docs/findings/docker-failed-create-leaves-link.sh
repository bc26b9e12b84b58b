#!/bin/sh
# Create with a parent that does not exist fails, ten times. Are links left in the directory l?
# Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
gd overlay2 "$home" exists a > /dev/null
for number in 1 2 3 4 5 6 7 8 9 10; do
    gd overlay2 "$home" create "a$number" nope > "$top/log" 2>&1 || true
done
echo "expected: 0 links"
echo "actual:   $(ls "$home/l" | wc -l) links"
