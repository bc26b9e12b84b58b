"""Mutants of create and remove."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphdriver.errors import DriverError, InvalidLayerId, PrerequisitesNotMet
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("LIF-008", "LNK-003", bug="moby #40709")
class LinkLeaked(Mutant):
    """A failed create leaves its short link."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except DriverError:
            (self.home / "l" / f"LEAKED{len(os.listdir(self.home / 'l')):020}").symlink_to(
                f"../{id}/diff"
            )
            raise


@mutant("LIF-008", bug="moby #40704")
class HalfMadeLayer(Mutant):
    """A failed create leaves a layer without a parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if parent and not self.wrapped.exists(parent):
            self.wrapped.create(id)
        super().make(id, parent, storage_opt)


@mutant("LIF-009", bug="moby overlay2: mkdir of an existing directory is no error")
class CreateTwiceSucceeds(Mutant):
    """create of an existing id succeeds without an effect."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if not self.wrapped.exists(id):
            super().make(id, parent, storage_opt)


@mutant("LIF-010", bug="moby overlay2: deferred RemoveAll of a failed create")
class FailedCreateDestroys(Mutant):
    """A failed create removes the existing layer with that id."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except DriverError:
            self.wrapped.remove(id)
            raise


@mutant("LIF-012", bug="moby #36161")
class EmptyIdWipesHome(Mutant):
    """remove("") deletes the whole home, because the empty id is joined to its path."""

    def remove(self, id: str) -> None:
        if id:
            return super().remove(id)
        for path in self.home.iterdir():
            shutil.rmtree(path)
        return None


@mutant("LIF-013", bug="CVE-2014-9358")
class IdsAreJoined(Mutant):
    """An id is joined to the home's path without a check."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if id.startswith("../"):
            (self.home / id / "diff").mkdir(parents=True)
        else:
            super().make(id, parent, storage_opt)


@mutant("LIF-013", bug="os.path.join: an absolute id is the whole path")
class AbsoluteIdsAreJoined(Mutant):
    """An absolute path is accepted as an id outside the home."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if os.path.isabs(id):
            (self.home / id / "diff").mkdir(parents=True)
        else:
            super().make(id, parent, storage_opt)


@mutant("LIF-013", bug="moby #36161, with `..`")
class DotsRemoveTheParent(Mutant):
    """remove("..") deletes the parent directory of the home."""

    def remove(self, id: str) -> None:
        if id in ("..", "../.."):
            shutil.rmtree(self.home.parent, ignore_errors=True)
        else:
            super().remove(id)


@mutant("LIF-015", bug="moby #45939")
class RemovedLayerStays(Mutant):
    """remove hides the layer but keeps its files."""

    def remove(self, id: str) -> None:
        if self.wrapped.exists(id):
            kept = self.home / f"{id}-removing"
            shutil.copytree(self.home / id / "diff", kept, symlinks=True)
        super().remove(id)


@mutant("LIF-018", bug="a cache of layer directories by id")
class OldContentComesBack(Mutant):
    """A reused id shows the files of the removed layer."""

    def remove(self, id: str) -> None:
        diff = self.home / id / "diff"
        if diff.is_dir():
            shutil.copytree(diff, self.home.parent / f"{id}.cached", symlinks=True)
        super().remove(id)

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        cached = self.home.parent / f"{id}.cached"
        if cached.is_dir():
            shutil.copytree(cached, self.home / id / "diff", dirs_exist_ok=True)


@mutant("LIF-019", bug="moby overlay2: remove does not check for children")
class ParentTakenAway(Mutant):
    """remove of a parent deletes its files although children exist."""

    def remove(self, id: str) -> None:
        try:
            super().remove(id)
        except DriverError:
            for path in (self.home / id / "diff").iterdir():
                shutil.rmtree(path)
                break


@mutant("LIF-020", bug="ocurrent/obuilder #215")
class RemovesThroughMount(Mutant):
    """remove of a held layer deletes files through its view, and then fails."""

    def remove(self, id: str) -> None:
        try:
            super().remove(id)
        except DriverError:
            for path in sorted((self.home / id / "merged").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            raise


@mutant("LIF-022", bug="moby RemoveAll before EnsureRemoveAll")
class DeletesBindMounts(Mutant):
    """remove of a base layer deletes files in directories that are bind-mounted into it."""

    wrapped_name = "vfs"

    def remove(self, id: str) -> None:
        layer = self.home / "dir" / id
        if layer.is_dir():
            _delete(layer)
        super().remove(id)


@mutant("LIF-025", bug="moby btrfs: unknown storage options are ignored")
class StorageOptionsIgnored(Mutant):
    """storage_opt is ignored."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, None)


@mutant("LIF-005", "LIF-006", bug="vfs by hard links instead of copies")
class CopiesByHardLink(Mutant):
    """Files of a child are hard links to the files of the parent."""

    wrapped_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if parent:
            above, here = self.home / "dir" / parent, self.home / "dir" / id
            for path in above.rglob("*"):
                copy = here / path.relative_to(above)
                if path.is_file() and not path.is_symlink() and copy.exists():
                    copy.unlink()
                    os.link(path, copy)


@mutant("LIF-002", bug="containers/storage #120")
class RootIsPrivate(Mutant):
    """The root of a new base layer has mode 0700."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if not parent:
            (self.home / id / "diff").chmod(0o700)


def _delete(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            _delete(path)
        else:
            path.unlink()


@mutant("LIF-001", bug="moby overlay2: exists is a stat(2) of the joined path")
class ExistsAlways(Mutant):
    """exists returns true for every id."""

    def exists(self, id: str) -> bool:
        return True


@mutant("LIF-004", bug="containerd #13030: an unpack into a bind mount instead of the chain")
class ParentForgotten(Mutant):
    """A child does not show the files of its parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if parent and not self.wrapped.exists(parent):
            super().make(id, parent, storage_opt)
        super().make(id, "", storage_opt)


@mutant("LIF-007", bug="a driver that supports containers on images only")
class ImagesHaveNoImages(Mutant):
    """create on a layer of create_read_write ignores the parent."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._written: set[str] = set()

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        self.make(id, "" if parent in self._written else parent, storage_opt)

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        self.make(id, parent, storage_opt)
        self._written.add(id)


@mutant("LIF-011", bug="moby overlay2: the layer's directory exists when its parent is looked up")
class OwnParent(Mutant):
    """create accepts a layer as its own parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, "" if parent == id else parent, storage_opt)


@mutant(
    "LIF-014", bug="CVE-2014-8178, with a fix that is too strict: ids are 64 hexadecimal digits"
)
class OnlyDigests(Mutant):
    """Ids longer than 64 characters are refused, including those with the suffix -init."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if len(id) > 64:
            raise InvalidLayerId(f"{id} is no digest")
        super().make(id, parent, storage_opt)


@mutant("LIF-016", bug="a store that accepts an abbreviation of an id")
class RemoveGuesses(Mutant):
    """remove of an unknown id removes another layer."""

    def remove(self, id: str) -> None:
        if id and not self.wrapped.exists(id):
            names = [one for one in os.listdir(self.home) if self.wrapped.exists(one)]
            for name in sorted(names):
                try:
                    return super().remove(name)
                except DriverError:
                    continue
        return super().remove(id)


@mutant("LIF-017", bug="reference counts that each remove decrements, also a repeated one")
class RepeatedRemoveTakesParent(Mutant):
    """A repeated remove also removes the parent, if it has no other child."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._parents: dict[str, str] = {}

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self._parents[id] = parent

    def remove(self, id: str) -> None:
        if not self.wrapped.exists(id) and (parent := self._parents.pop(id, "")):
            id = parent
        super().remove(id)


@mutant("LIF-024", bug="moby overlay2: diff has mode 0755, independent of the parent")
class RootIsAlways0755(Mutant):
    """The root of a child has mode 0755 and is owned by root."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        diff = self.home / id / "diff"
        os.chown(diff, 0, 0)
        diff.chmod(0o755)


@mutant("LIF-026", bug="a driver that checks for the argument, not for its entries")
class EmptyOptionsRefused(Mutant):
    """storage_opt={} is refused as an unsupported option."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if storage_opt is not None and not storage_opt:
            raise PrerequisitesNotMet("storage options are not supported")
        super().make(id, parent, storage_opt)


@mutant(
    "ARC-009",
    bug="moby vfs: mknod(2) of a socket fails with EINVAL; containers-storage vfs: lchown",
)
class SocketsStopCopies(Mutant):
    """create on a parent with a socket fails."""

    wrapped_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        for path in Path(self.wrapped.get(parent)).rglob("*") if parent else ():
            if path.is_socket():
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


@mutant("LIF-021", bug="removal by full paths, which are limited to PATH_MAX")
class RemovesByPath(Mutant):
    """remove uses full paths and fails if one is longer than PATH_MAX."""

    def remove(self, id: str) -> None:
        def fail(error: OSError) -> None:
            raise error

        if self.wrapped.exists(id):
            for _ in os.walk(self.home / id / "diff", onerror=fail):
                pass
        super().remove(id)


@mutant("LIF-037", bug="docker.machine #1845: a store on a case-insensitive file system")
class IdsFoldedToLowerCase(Mutant):
    """An id is also the id of the layer in another case."""

    def _folded(self, id: str) -> str:
        lower = id.lower()
        return lower if self.wrapped.exists(lower) else id

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(self._folded(id), parent, storage_opt)

    def remove(self, id: str) -> None:
        super().remove(self._folded(id))

    def get(self, id: str, mount_label: str = "") -> Path:
        return super().get(self._folded(id), mount_label)

    def put(self, id: str) -> None:
        super().put(self._folded(id))

    def exists(self, id: str) -> bool:
        return super().exists(self._folded(id))
