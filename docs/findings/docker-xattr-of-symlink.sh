#!/bin/sh
# An image layer with a file, and a symlink to it that has an attribute; which of them gets it?
# Needs root, gd (gd.go), python3 and getfattr (attr).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
python3 - "$top/one.tar" << 'END'
import sys, tarfile
with tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT) as archive:
    archive.addfile(tarfile.TarInfo("file"))
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "file"
    link.pax_headers = {"SCHILY.xattr.trusted.of": "link"}
    archive.addfile(link)
END
gd overlay2 "$home" create base -- apply base < "$top/one.tar"
view=$(gd overlay2 "$home" get base)
has() { getfattr -h --only-values -n trusted.of "$view/$1" > /dev/null 2>&1 && echo yes || echo no; }
echo "expected: file: no, link: yes"
echo "actual:   file: $(has file), link: $(has link)"
