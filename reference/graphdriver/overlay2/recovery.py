"""Remnants of crashes: this module defines all their names, and how each is repaired.

A layer is built under a name that no layer can have and renamed when it is complete; it is renamed
to such a name before it is deleted; an archive is unpacked into a staging directory inside the
layer, to which a symlink in the home points while it exists. Therefore every remnant of a crash has
one of the names below in the home, and a mount below such a name is stale.
"""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphdriver.errors import LayerInUse
from graphdriver.homedir import DIRECTORY, try_lock
from graphdriver.linux.files import cleaning_up
from graphdriver.linux.mounts import detach, mountinfo
from graphdriver.tree.removal import remove_unmounted

__all__ = [
    "APPLYING",
    "CREATING",
    "REMOVED",
    "UNDO",
    "clear",
    "forget_index",
    "is_dockerd_remnant",
    "is_remnant",
    "recover",
    "repair_layer",
    "require_no_apply",
    "scratch",
    "stage_link",
]

PROBE, CREATING, REMOVED, STAGED = ".probe-", ".creating-", ".removed-", ".staged-"
_REMNANTS = (PROBE, CREATING, REMOVED, STAGED)

APPLYING = ".applying"
"""In a layer: the staging directory of an apply_diff."""

UNDO = "undo"
"""In that directory: a copy of the old tree, while an archive is applied to a layer in use."""

# dockerd probes in such directories and leaves them if it is killed (overlayutils, overlay2).
_DOCKERD = re.compile(r"(check-overlayfs-support|opaque-bug-check|metacopy-check)\d+")

# Errors for an entry of a home that is not a layer: it is a file or a symlink, or the disk has
# failed.
_NO_LAYER = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.ENOTCONN,
    errno.ESTALE,
)


def is_remnant(name: str) -> bool:
    """Return whether an entry of a home is a remnant of this driver."""
    return name.startswith(_REMNANTS)


def is_dockerd_remnant(name: str) -> bool:
    """Return whether an entry of a home is a remnant of dockerd."""
    return _DOCKERD.fullmatch(name) is not None


def recover(home: Path) -> None:
    """Repair the home after a crash, for the only driver on it; short links are in layout.py.

    A remnant that cannot be removed does no harm: it stays, and `graphdriver fsck` names it. A
    layer that cannot be brought back is an OSError. Layers are not looked into: a home has
    thousands of them.
    """
    for name in os.listdir(home):
        if name.startswith(STAGED):
            _repair_staged(home, name)
        elif is_remnant(name):
            with suppress(OSError):
                clear(home, name)


def stage_link(unique: str, id: str) -> tuple[str, str]:
    """Return name and target of the symlink in the home that points to a staging directory.

    It is created before the staging directory and removed after it. `unique` makes the name unique:
    a process that removes its own link must not remove that of the next process.
    """
    return f"{STAGED}{unique}", f"{id}/{APPLYING}"


def _repair_staged(home: Path, name: str) -> None:
    """Restore the layer that a link to a staging directory names, and remove the link."""
    id = ""
    with suppress(OSError):
        id = os.readlink(home / name).partition("/")[0]
    if id and id != ".." and _has_stage(home / id):
        restore_layer(home / id)
        with suppress(OSError):
            clear(home / id, APPLYING)
        if _has_stage(home / id):
            return
    with suppress(OSError):
        clear(home, name)


def repair_layer(layer: Path) -> None:
    """Undo an interrupted apply_diff, and remove its staging directory.

    Raises LayerInUse, OSError.
    """
    if _has_stage(layer):
        restore_layer(layer)
        clear(layer, APPLYING)


def restore_layer(layer: Path) -> None:
    """Restore a layer to its state before an interrupted apply_diff. Raises LayerInUse, OSError."""
    stage = layer / APPLYING
    require_no_apply(layer)
    if os.path.lexists(stage / UNDO):
        # Otherwise the view of a dead process would still show the directory that is moved away.
        for entry in reversed(mountinfo(layer)):
            detach(entry.point)
        # Two renames, with a possible crash after each.
        with suppress(FileNotFoundError):
            os.rename(layer / "diff", stage / "partial")
        forget_index(layer)
        os.rename(stage / UNDO, layer / "diff")


def forget_index(layer: Path) -> None:
    """Remove the index of a layer's upper before the upper is exchanged.

    With index=on the kernel refuses it for another upper.
    """
    if os.path.lexists(layer / "work" / "index"):
        clear(layer / "work", "index")


def require_no_apply(layer: Path) -> None:
    """Raise LayerInUse if another process applies an archive to the layer: its stage is locked."""
    try:
        stage = os.open(layer / APPLYING, DIRECTORY)
    except FileNotFoundError:
        return
    try:
        if not try_lock(stage):
            raise LayerInUse(
                f"another process applies an archive to layer {layer.name}", "wait for its end"
            )
    finally:
        os.close(stage)


def clear(directory: Path, name: str) -> None:
    """Remove `directory`/`name` with its tree; mounts in it are unmounted."""

    def remove() -> None:
        descriptor = os.open(directory, DIRECTORY)
        try:
            with suppress(FileNotFoundError):
                remove_unmounted(descriptor, name, directory)
        finally:
            os.close(descriptor)

    cleaning_up(remove)


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """Create a directory for a probe; afterwards remove it and unmount its `merged`.

    An error of the block takes precedence over errors of the removal.
    """
    directory = Path(tempfile.mkdtemp(prefix=PROBE, dir=home))
    try:
        yield directory
    except BaseException:
        with suppress(OSError):
            clear(home, directory.name)
        raise
    try:
        clear(home, directory.name)
    except OSError:  # a passing error must not leave a mount
        clear(home, directory.name)


def _has_stage(layer: Path | str) -> bool:
    """Return whether an entry of a home is a layer with a stage; ignore other programs' files."""
    try:
        os.lstat(f"{layer}/{APPLYING}")
    except OSError as error:
        if error.errno not in _NO_LAYER:
            raise
        return False
    return not os.path.islink(layer)  # the target of a symlink is outside the home
