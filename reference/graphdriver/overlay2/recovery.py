"""Remnants of crashes: the one place that knows their names, and how each is mended.

A layer is built under a name that no layer can have and renamed when it is whole; it is renamed to
such a name before it is deleted; an archive is unpacked into a stage inside the layer. So whatever
a crash leaves has one of the names below, and what is mounted under such a name is nobody's.
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
    "mend_layer",
    "recover",
    "require_no_apply",
    "scratch",
]

PROBE, CREATING, REMOVED = ".probe-", ".creating-", ".removed-"
_REMNANTS = (PROBE, CREATING, REMOVED)

APPLYING = ".applying"
"""In a layer: the stage of an apply_diff."""

UNDO = "undo"
"""In that stage: the layer's tree as it was, while an archive is applied to a layer in use."""

# dockerd probes in such directories and leaves them when it is killed (overlayutils, overlay2).
_DOCKERD = re.compile(r"(check-overlayfs-support|opaque-bug-check|metacopy-check)\d+")

# What looking into an entry of a home raises that is no layer: a file, a symlink, or a disk that
# is gone.
_NO_LAYER = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.ENOTCONN,
    errno.ESTALE,
)


def is_remnant(name: str) -> bool:
    """Say whether an entry of a home is what a crash of this driver leaves."""
    return name.startswith(_REMNANTS)


def is_dockerd_remnant(name: str) -> bool:
    """Say whether an entry of a home is what a crash of dockerd leaves."""
    return _DOCKERD.fullmatch(name) is not None


def recover(home: Path) -> None:
    """Mend the home after a crash, for a driver that is alone with it; short names are layout.py's.

    A remnant that cannot be removed does no harm: it stays, and `graphdriver fsck` names it. A
    layer that cannot be brought back is an OSError.
    """
    for name in os.listdir(home):
        if is_remnant(name):
            with suppress(OSError):
                clear(home, name)
        elif _has_stage(f"{home}/{name}"):
            bring_back(home / name)
            with suppress(OSError):
                clear(home / name, APPLYING)


def mend_layer(layer: Path) -> None:
    """Undo an apply_diff that was cut off, and remove its stage. Raises LayerInUse, OSError."""
    if _has_stage(layer):
        bring_back(layer)
        clear(layer, APPLYING)


def bring_back(layer: Path) -> None:
    """Bring a layer back to where it was before an apply_diff that was cut off.

    Raises LayerInUse, OSError.
    """
    stage = layer / APPLYING
    require_no_apply(layer)
    if os.path.lexists(stage / UNDO):
        # The view of a dead process would go on showing the directory that is moved away.
        for entry in reversed(mountinfo(layer)):
            detach(entry.point)
        # Two renames, each of which may be the last before another crash.
        with suppress(FileNotFoundError):
            os.rename(layer / "diff", stage / "partial")
        forget_index(layer)
        os.rename(stage / UNDO, layer / "diff")


def forget_index(layer: Path) -> None:
    """Remove the index of a layer's upper, before that is exchanged.

    With index=on the kernel refuses it for another upper.
    """
    if os.path.lexists(layer / "work" / "index"):
        clear(layer / "work", "index")


def require_no_apply(layer: Path) -> None:
    """Raise LayerInUse when another process applies an archive to the layer: it locks its stage."""
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
    """Remove `directory`/`name` with all that is below; what is mounted there is unmounted."""

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
    """Make a directory to try things in, and remove it with what was mounted on its `merged`.

    An error of the block is the one that is raised, whatever the removal met.
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
    """Say whether an entry of a home is a layer with a stage. Files of others may be there, too."""
    try:
        os.lstat(f"{layer}/{APPLYING}")
    except OSError as error:
        if error.errno not in _NO_LAYER:
            raise
        return False
    return not os.path.islink(layer)  # what it points to is not ours
