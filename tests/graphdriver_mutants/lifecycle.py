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
    """A create that fails leaves its short link behind."""

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
    """A create that fails leaves a layer without a parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if parent and not self.sound.exists(parent):
            self.sound.create(id)
        super().make(id, parent, storage_opt)


@mutant("LIF-009", bug="moby overlay2: mkdir of an existing directory is no error")
class CreateTwiceSucceeds(Mutant):
    """A create of an existing id does nothing and says it worked."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if not self.sound.exists(id):
            super().make(id, parent, storage_opt)


@mutant("LIF-010", bug="moby overlay2: deferred RemoveAll of a failed create")
class FailedCreateDestroys(Mutant):
    """A create that fails removes the layer that had the id."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except DriverError:
            self.sound.remove(id)
            raise


@mutant("LIF-012", bug="moby #36161")
class EmptyIdWipesHome(Mutant):
    """remove("") joins the home with nothing and deletes the result."""

    def remove(self, id: str) -> None:
        if id:
            return super().remove(id)
        for path in self.home.iterdir():
            shutil.rmtree(path)
        return None


@mutant("LIF-013", bug="CVE-2014-9358")
class IdsAreJoined(Mutant):
    """An id is joined to the home unseen."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if id.startswith("../"):
            (self.home / id / "diff").mkdir(parents=True)
        else:
            super().make(id, parent, storage_opt)


@mutant("LIF-013", bug="os.path.join: an absolute id is the whole path")
class AbsoluteIdsAreJoined(Mutant):
    """An absolute id is a layer wherever it says."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if os.path.isabs(id):
            (self.home / id / "diff").mkdir(parents=True)
        else:
            super().make(id, parent, storage_opt)


@mutant("LIF-013", bug="moby #36161, by way of `..`")
class DotsRemoveTheParent(Mutant):
    """remove joins the home with any id and deletes the result."""

    def remove(self, id: str) -> None:
        if id in ("..", "../.."):
            shutil.rmtree(self.home.parent, ignore_errors=True)
        else:
            super().remove(id)


@mutant("LIF-015", bug="moby #45939")
class RemovedLayerStays(Mutant):
    """remove hides a layer and keeps its files."""

    def remove(self, id: str) -> None:
        if self.sound.exists(id):
            kept = self.home / f"{id}-removing"
            shutil.copytree(self.home / id / "diff", kept, symlinks=True)
        super().remove(id)


@mutant("LIF-018", bug="a cache of layer directories by id")
class OldContentComesBack(Mutant):
    """An id that is used again finds the removed layer's files."""

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


@mutant("LIF-019", bug="moby overlay2: remove does not look for children")
class ParentTakenAway(Mutant):
    """remove of a parent empties it under its children."""

    def remove(self, id: str) -> None:
        try:
            super().remove(id)
        except DriverError:
            for path in (self.home / id / "diff").iterdir():
                shutil.rmtree(path)
                break


@mutant("LIF-020", bug="ocurrent/obuilder #215")
class RemovesThroughMount(Mutant):
    """remove of a held layer deletes what its view shows, then fails."""

    def remove(self, id: str) -> None:
        try:
            super().remove(id)
        except DriverError:
            for path in sorted((self.home / id / "merged").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            raise


@mutant("LIF-022", bug="moby RemoveAll before EnsureRemoveAll")
class DeletesBindMounts(Mutant):
    """remove of a base layer goes through mounts that others made in it."""

    sound_name = "vfs"

    def remove(self, id: str) -> None:
        layer = self.home / "dir" / id
        if layer.is_dir():
            _delete(layer)
        super().remove(id)


@mutant("LIF-025", bug="moby btrfs: unknown storage options are ignored")
class StorageOptionsIgnored(Mutant):
    """Nothing that storage_opt says matters."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, None)


@mutant("LIF-005", "LIF-006", bug="vfs by hard links instead of copies")
class CopiesByHardLink(Mutant):
    """A child's files are the parent's own."""

    sound_name = "vfs"

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
    """A new base layer's root has mode 0700."""

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


@mutant("LIF-001", bug="moby overlay2: exists is a stat of whatever path comes out")
class ExistsAlways(Mutant):
    """Every id exists."""

    def exists(self, id: str) -> bool:
        return True


@mutant("LIF-004", bug="containerd #13030: an unpack that got a bind mount instead of the chain")
class ParentForgotten(Mutant):
    """A child shows nothing of its parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if parent and not self.sound.exists(parent):
            super().make(id, parent, storage_opt)
        super().make(id, "", storage_opt)


@mutant("LIF-007", bug="a driver that knows containers on images only")
class ImagesHaveNoImages(Mutant):
    """create on a layer of create_read_write drops the parent."""

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


@mutant("LIF-011", bug="moby overlay2: the layer's directory is there when its parent is looked up")
class OwnParent(Mutant):
    """A layer can be its own parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, "" if parent == id else parent, storage_opt)


@mutant("LIF-014", bug="CVE-2014-8178, mended too well: ids are 64 hexadecimal digits")
class OnlyDigests(Mutant):
    """Ids longer than 64 characters are refused, -init and all."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if len(id) > 64:
            raise InvalidLayerId(f"{id} is no digest")
        super().make(id, parent, storage_opt)


@mutant("LIF-016", bug="a store that looks for a layer by the beginning of its id")
class RemoveGuesses(Mutant):
    """remove of an unknown id removes the layer it resembles most, or any."""

    def remove(self, id: str) -> None:
        if id and not self.sound.exists(id):
            names = [one for one in os.listdir(self.home) if self.sound.exists(one)]
            for name in sorted(names):
                try:
                    return super().remove(name)
                except DriverError:
                    continue
        return super().remove(id)


@mutant("LIF-017", bug="counts of references that each remove lowers, the repeated one too")
class RepeatedRemoveTakesParent(Mutant):
    """A removal that is repeated removes the parent that nobody else uses."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._parents: dict[str, str] = {}

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self._parents[id] = parent

    def remove(self, id: str) -> None:
        if not self.sound.exists(id) and (parent := self._parents.pop(id, "")):
            id = parent
        super().remove(id)


@mutant("LIF-024", bug="moby overlay2: diff is 0755, whatever the parent's is")
class RootIsAlways0755(Mutant):
    """A child's root is 0755, root's."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        diff = self.home / id / "diff"
        os.chown(diff, 0, 0)
        diff.chmod(0o755)


@mutant("LIF-026", bug="a driver that asks whether there are options, not which")
class EmptyOptionsRefused(Mutant):
    """storage_opt={} is an option that it does not have."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if storage_opt is not None and not storage_opt:
            raise PrerequisitesNotMet("storage options are not supported")
        super().make(id, parent, storage_opt)


@mutant("ARC-009", bug="moby vfs: mknod of a socket is EINVAL; containers-storage vfs: lchown")
class SocketsStopCopies(Mutant):
    """A parent that holds a socket can have no children."""

    sound_name = "vfs"

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        for path in Path(self.sound.get(parent)).rglob("*") if parent else ():
            if path.is_socket():
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


@mutant("LIF-021", bug="removal by whole paths, of which none is longer than PATH_MAX")
class RemovesByPath(Mutant):
    """remove goes through the layer by paths, and fails where one is too long."""

    def remove(self, id: str) -> None:
        def fail(error: OSError) -> None:
            raise error

        if self.sound.exists(id):
            for _ in os.walk(self.home / id / "diff", onerror=fail):
                pass
        super().remove(id)
