"""Mutants that change a layer although an ancestor or descendant is in use."""

import errno
import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from graphdriver.errors import LayerInUse
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import members_of

__all__: list[str] = []

# How long a mutant waits in its race window for another thread, in seconds.
_GAP = 0.1
_SOME = 20
"""Files after which a mutant waits that unpacks an archive in place."""


@mutant("MNT-027", bug="moby #22116, for the parent that a naive diff gets and puts")
class DiffUnmountsTheParent(Mutant):
    """diff against a parent unmounts the parent's view, even if it is held."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, and umount(8)."""
        stream = super().diff(id, parent)
        if parent and os.path.ismount(self.home / parent / "merged"):
            subprocess.run(["umount", "--lazy", self.home / parent / "merged"], check=True)
        return stream


class _Forces(Mutant):
    """Lets a subclass remove or exchange layers that are in use."""

    def force_removal(self, id: str) -> None:
        """Remove a layer and its short link, regardless of its children."""
        link = (self.home / id / "link").read_text()
        shutil.rmtree(self.home / id)
        (self.home / "l" / link).unlink()

    def force_exchange(self, id: str, parent: str, data: bytes) -> int:
        """Apply an archive to a copy of a layer's directory, and exchange the two."""
        new = f"{id}-exchanged"
        self.wrapped.create(new, parent)
        mine, theirs = self.home / id / "diff", self.home / new / "diff"
        shutil.copytree(mine, theirs, symlinks=True, dirs_exist_ok=True)
        size = self.wrapped.apply_diff(new, parent, io.BytesIO(data))
        mine.rename(mine.with_name("old"))
        theirs.rename(mine)
        mine.with_name("old").rename(theirs)
        self.wrapped.remove(new)
        return size


@mutant("LIF-029", bug="buildkit #6977: the children of a layer are known to one process only")
class ChildrenForgottenAtRestart(_Forces):
    """remove only knows children that were created since the driver was started."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._parents: set[str] = set()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, and record the parent."""
        super().make(id, parent, storage_opt)
        self._parents.add(parent)

    def remove(self, id: str) -> None:
        """Driver.remove; forced if the layer has no recorded children and is not held."""
        try:
            super().remove(id)
        except LayerInUse:
            if id in self._parents or os.path.ismount(self.home / id / "merged"):
                raise
            self.force_removal(id)


@mutant("LIF-029", bug="moby #13261: the daemon checks for containers of the image itself")
class OnlyChildrenCount(_Forces):
    """remove checks whether children are held, but not their descendants."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._parents: dict[str, str] = {}

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create, and record the parent."""
        super().make(id, parent, storage_opt)
        self._parents[id] = parent

    def remove(self, id: str) -> None:
        """Driver.remove; forced unless the layer or a child is mounted."""
        try:
            super().remove(id)
        except LayerInUse:
            near = [id, *(one for one, parent in self._parents.items() if parent == id)]
            if any(os.path.ismount(self.home / one / "merged") for one in near):
                raise
            self.force_removal(id)


@mutant("DIF-051", bug="moby #13261; overlay2 of this project until 2026")
class ExchangesBelowHolders(_Forces):
    """apply_diff exchanges a layer's directory while it is the lower directory of a mount."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, forced if a descendant is held."""
        data = diff.read()
        try:
            return super().apply_diff(id, parent, io.BytesIO(data))
        except LayerInUse:
            return self.force_exchange(id, parent, data)


@mutant("CON-016", bug="moby #13261, if the child is created and held meanwhile")
class AppliesBelowNewHolders(_Forces):
    """apply_diff unpacks, then exchanges the directory without checking for new holds above."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._got = threading.Event()

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; reports itself to a running apply_diff."""
        view = super().get(id, mount_label)
        if os.path.ismount(view):
            self._got.set()
        return view

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff; a child may be held meanwhile."""
        data = diff.read()
        self._got.clear()
        self._got.wait(_GAP)
        try:
            return super().apply_diff(id, parent, io.BytesIO(data))
        except LayerInUse:
            return self.force_exchange(id, parent, data)


@mutant("CON-016", bug="overlay2 of this project until 2026: a layer is held, so apply is in place")
class AppliesInPlaceBelowChildren(Mutant):
    """apply_diff to a held layer writes into its view while a child can be mounted."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._got = threading.Event()
        self._views: dict[str, Path] = {}

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get; reports itself to a running apply_diff."""
        self._views[id] = super().get(id, mount_label)
        self._got.set()
        return self._views[id]

    def put(self, id: str) -> None:
        """Driver.put."""
        super().put(id)
        self._views.pop(id, None)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff; to a held layer, writes the files into its view."""
        view = self._views.get(id)
        if view is None:
            return super().apply_diff(id, parent, diff)
        self._got.clear()
        size = 0
        with tarfile.open(fileobj=diff, mode="r|") as members:
            for number, member in enumerate(members):
                content = members.extractfile(member)
                if content is None:
                    continue
                if number == _SOME:
                    self._got.wait(_GAP)
                path = view / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
                path.chmod(member.mode)
                os.utime(path, (member.mtime, member.mtime))
                size += member.size
        return size


@mutant("DIF-050", bug="vfs of this project until 2026: diff holds the layer, so apply is in place")
class AppliesUnderReaders(Mutant):
    """apply_diff to a layer whose archive is being read overwrites files that are not read yet."""

    wrapped_name = "vfs"

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff; in place if it is refused."""
        data = diff.read()
        try:
            return super().apply_diff(id, parent, io.BytesIO(data))
        except LayerInUse:
            found = [(member, content) for member, content in members_of(data) if member.isreg()]
            for member, content in found:
                (self.home / "dir" / id / member.name).write_bytes(content)
            return sum(len(content) for _, content in found)


@mutant("MNT-028", bug="moby #29721, #30811")
class MountsOverStale(Mutant):
    """get mounts over the mount of a dead process, and put unmounts only one of the two."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counts: dict[str, int] = {}

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, and a bind mount over the mount of another process."""
        was_mounted = os.path.ismount(self.home / id / "merged")
        view = super().get(id, mount_label)
        if was_mounted and not self._counts.get(id):
            subprocess.run(["mount", "--bind", view, view], check=True)
        self._counts[id] = self._counts.get(id, 0) + 1
        return view

    def put(self, id: str) -> None:
        """Driver.put, counted."""
        self._counts[id] = max(0, self._counts.get(id, 0) - 1)
        super().put(id)


@mutant("MNT-030", bug="moby #22260: device or resource busy")
class StaleMountsKeepLayers(Mutant):
    """remove of a layer fails while it has a mount of another process."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._known: set[str] = set()

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, recorded."""
        self._known.add(id)
        return super().get(id, mount_label)

    def remove(self, id: str) -> None:
        """Driver.remove; a mount of another process is EBUSY, as from rmdir(2)."""
        if id and id not in self._known and os.path.ismount(self.home / id / "merged"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.home / id))
        super().remove(id)


@mutant("CON-015", bug="buildkit #6977; overlay2 of this project until 2026")
class AsksForChildrenTooEarly(_Forces):
    """remove checks for children, and removes the layer some time later without a lock."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._parents: dict[str, str] = {}
        self._made = threading.Event()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create; reports itself to a remove that has checked for children already."""
        super().make(id, parent, storage_opt)
        self._parents[id] = parent
        if parent:
            self._made.set()

    def remove(self, id: str) -> None:
        """Check for children, then remove; forced if one was created meanwhile."""
        if id and self.wrapped.exists(id) and id not in self._parents.values():
            self._made.clear()
            self._made.wait(_GAP)
            try:
                super().remove(id)
            except LayerInUse:
                self.force_removal(id)
        else:
            super().remove(id)
            self._parents.pop(id, None)


@mutant("CON-017", bug="a cache of layers in which create finds its parent")
class ParentIsRemembered(Mutant):
    """create on a removed parent succeeds without creating the layer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._known: set[str] = set()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create; without an effect if the parent has been removed."""
        if parent not in self._known or self.wrapped.exists(parent):
            super().make(id, parent, storage_opt)
            self._known.add(id)
