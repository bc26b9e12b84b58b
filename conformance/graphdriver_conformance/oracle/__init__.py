"""The expected contents of layers, computed without any driver; for the suite and for own checks.

A model of file trees (`tree`), the image-spec's rules on it (`layer`, `archive`), reading and
writing trees on disk (`observe`, `plant`) and comparison (`compare`, `changes`). It shares no code
with `graphdriver`. The names below are the public ones.
"""

from graphdriver_conformance.oracle.archive import (
    LayerEntry,
    UnreadableArchive,
    archive_findings,
    build_archive,
    entry_of,
    opaque,
    read_archive,
    whiteout,
)
from graphdriver_conformance.oracle.changes import change_findings, expected_changes
from graphdriver_conformance.oracle.compare import (
    Aspect,
    TreesDiffer,
    assert_same_tree,
    differences,
)
from graphdriver_conformance.oracle.layer import apply_layer, flatten, make_layer
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import plant, rebuild
from graphdriver_conformance.oracle.tree import (
    Node,
    NodeKind,
    Tree,
    device,
    directory,
    fifo,
    file,
    symlink,
)

__all__ = [
    "Aspect",
    "LayerEntry",
    "Node",
    "NodeKind",
    "Tree",
    "TreesDiffer",
    "UnreadableArchive",
    "apply_layer",
    "archive_findings",
    "assert_same_tree",
    "build_archive",
    "change_findings",
    "device",
    "differences",
    "directory",
    "entry_of",
    "expected_changes",
    "fifo",
    "file",
    "flatten",
    "make_layer",
    "observe",
    "opaque",
    "plant",
    "read_archive",
    "rebuild",
    "symlink",
    "whiteout",
]
