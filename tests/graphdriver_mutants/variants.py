"""Correct drivers that differ from the embedded ones within the contract.

Each is conformant, which `tests/conformance/mutants` checks. They are built as mutants are, on a
correct driver; run one with `pytest --driver=graphdriver_mutants.variants:NAME`.
"""

import errno
import gzip
import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from graphdriver.contract import Capability, Change, IDMap
from graphdriver.errors import (
    BadArchive,
    DriverError,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    NotSupported,
    PrerequisitesNotMet,
)
from graphdriver_mutants.refusals import Plain
from graphdriver_mutants.registry import Mutant
from graphdriver_mutants.rewriting import Member, RewritesDiff

__all__ = ["VARIANTS", "Variant", "variant"]

VARIANTS: dict[str, type["Variant"]] = {}


class Variant(Mutant):
    """A driver that behaves differently from the embedded ones, within the contract.

    `checked_by` are the requirements, or the beginnings of their ids, whose tests observe the
    difference; `violates` the ones of level SHOULD that it violates, `unproven` the ones that
    cannot be tested with it.
    """

    checked_by: ClassVar[tuple[str, ...]] = ()
    violates: ClassVar[tuple[str, ...]] = ()
    unproven: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def spec(cls) -> str:
        """Return the SPEC that runs it."""
        return f"graphdriver_mutants.variants:{cls.__name__}"


def variant(
    *checked_by: str, violates: tuple[str, ...] = ()
) -> Callable[[type[Variant]], type[Variant]]:
    """Register a variant, with its `checked_by` and `violates`; see Variant."""

    def register(made: type[Variant]) -> type[Variant]:
        made.checked_by, made.violates = checked_by, violates
        VARIANTS[made.__name__] = made
        return made

    return register


def __getattr__(name: str) -> type[Variant]:
    """Return the variant of that name from another module, so that it can be named in a SPEC."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise AttributeError(name) from None


_ERRNOS = {
    InvalidLayerId: errno.EINVAL,
    LayerNotFound: errno.ENOENT,
    LayerExists: errno.EEXIST,
    LayerInUse: errno.EBUSY,
    BadArchive: errno.EBADMSG,
}


class _Translated:
    """A verb whose refusals are OSErrors."""

    def __init__(self, verb: Callable[..., Any]) -> None:
        self._verb = verb

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        try:
            return self._verb(*arguments, **named)
        except DriverError as error:
            number = _ERRNOS.get(type(error))
            if number is None:
                raise
            raise OSError(number, str(error)) from None


@variant(
    "LIF",
    "LIM-002",
    "INI-002",
    "INI-003",
    "INI-004",
    "INI-006",
    "INI-011",
    "QUO-004",
    "MNT-01",
    "DIF-02",
    "DIF-030",
    "CLN-004",
    "ERR",
    violates=tuple(f"ERR-{number:03}" for number in range(1, 12)),
)
class EveryErrorIsPlain(Plain, Variant):
    """Every refusal is a plain DriverError, never a subclass."""

    loses = (DriverError,)


@variant("LIF", "MNT-002", "MET-003", "CHG-021", "DIF-008", "DIF-02", "DIF-030", "SIZ-004")
class ErrorsOfTheSystem(Variant):
    """Refusals are OSErrors: ENOENT, EEXIST, EBUSY, EINVAL, EBADMSG."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for verb in ("remove", "get", "put", "get_metadata", "diff", "changes", "apply_diff"):
            setattr(self, verb, _Translated(getattr(self.wrapped, verb)))
        self.diff_size = _Translated(self.wrapped.diff_size)  # type: ignore[method-assign]
        self.make = _Translated(self.wrapped.create_read_write)  # type: ignore[method-assign]

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        _Translated(self.wrapped.create)(id, parent, mount_label, storage_opt)

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        _Translated(self.wrapped.create_read_write)(id, parent, mount_label, storage_opt)


@variant("CHG")
class ChangesInAnotherOrder(Variant):
    """changes lists paths in reverse order."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        return sorted(super().changes(id, parent), reverse=True)


@variant("DIF-002", "DIF-003", "DIF-006", "DIF-010", "DIF-011", "DIF-025", "DIF-034", "CHG-022")
class WhiteoutsWithMetadata(RewritesDiff, Variant):
    """Whiteouts have a mode, an owner and a time, as in containers/storage."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if os.path.basename(member.name).startswith(".wh."):
                member.mode, member.uid, member.gid, member.mtime = 0o777, 12, 34, 1_600_000_000
            yield member, data


class _KnowsParent(RewritesDiff, Variant):
    """Lets a subclass read the parent's tree while it rewrites a diff."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, rewritten where there is a parent."""
        if not parent:
            return self.wrapped.diff(id, parent)
        self._parent = self.wrapped.get(parent)
        try:
            return super().diff(id, parent)
        finally:
            self.wrapped.put(parent)

    def below(self, directory: str) -> set[str]:
        """Return the names in a directory of the parent."""
        path = self._parent / directory
        return set(os.listdir(path)) if path.is_dir() and not path.is_symlink() else set()


def _marker(name: str) -> Member:
    return tarfile.TarInfo(name), b""


@variant("DIF-002", "DIF-003", "DIF-010", "DIF-011", "DIF-014", "DIF-025", "DIF-034", "WHT-00")
class ExplicitInsteadOfOpaque(_KnowsParent):
    """A recreated directory has a whiteout for each old name, as in containerd."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        names = {member.name.rstrip("/") for member, _ in members}
        for member, data in members:
            above, base = os.path.split(member.name)
            if base != ".wh..wh..opq":
                yield member, data
                continue
            yield from self._explicit(above, names)

    def _explicit(self, above: str, names: set[str]) -> Iterator[Member]:
        """Yield a whiteout for each old name, also in recreated directories."""
        for old in sorted(self.below(above)):
            path = os.path.join(above, old)
            if path not in names:
                yield _marker(os.path.join(above, f".wh.{old}"))
            elif f"{path}/.wh..wh..opq" not in names:
                yield from self._explicit(path, names)


@variant("DIF-002", "DIF-003", "DIF-010", "DIF-011", "DIF-025", "DIF-034", "WHT-00")
class OpaqueInsteadOfExplicit(_KnowsParent):
    """A directory that lost all its lower entries is exported as opaque."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        gone: dict[str, set[str]] = {}
        for member, _ in members:
            above, base = os.path.split(member.name)
            if base.startswith(".wh.") and base != ".wh..wh..opq":
                gone.setdefault(above, set()).add(base[4:])
        emptied = {above for above, names in gone.items() if above and names == self.below(above)}
        marked: set[str] = set()
        for member, data in members:
            above, base = os.path.split(member.name)
            if above not in emptied or not base.startswith(".wh."):
                yield member, data
            elif above not in marked:
                marked.add(above)
                yield _marker(os.path.join(above, ".wh..wh..opq"))


@variant("LIF", "MNT-00", "MET", "CLN")
class Slower(Variant):
    """Each verb takes a few milliseconds longer."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("make", "remove", "get", "put", "status", "get_metadata", "cleanup"):
            time.sleep(0.003)
        return super().__getattribute__(name)


@variant("MET", "INI-001", "LAY-005")
class OtherStatus(Variant):
    """status has other rows in another order."""

    def status(self) -> list[tuple[str, str]]:
        return [("Pool", "default"), *reversed(super().status()), ("Cache", "")]


@variant("LIF", "LNK-003", "CON-017")
class CreateReplaces(Variant):
    """create of an existing id replaces the layer unless it is in use."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if id != parent and self.wrapped.exists(id) and (not parent or self.wrapped.exists(parent)):
            self.wrapped.remove(id)
        super().make(id, parent, storage_opt)


@variant("LIF", "MNT-00", "CLN")
class RemoveUnmounts(Variant):
    """remove of a held layer unmounts and removes it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._holds: dict[str, int] = {}

    def get(self, id: str, mount_label: str = "") -> Path:
        view = super().get(id, mount_label)
        self._holds[id] = self._holds.get(id, 0) + 1
        return view

    def put(self, id: str) -> None:
        super().put(id)
        self._holds[id] = max(0, self._holds.get(id, 0) - 1)

    def remove(self, id: str) -> None:
        for _ in range(self._holds.pop(id, 0)):
            self.wrapped.put(id)
        super().remove(id)


@variant("LAY", "LIF-00", "MNT-00", "LNK", "MET")
class MergedComesAndGoes(Variant):
    """The directory `merged` exists only while a layer is mounted, as in dockerd since 17.12."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self._without(id)

    def put(self, id: str) -> None:
        super().put(id)
        self._without(id)

    def _without(self, id: str) -> None:
        merged = self.home / id / "merged"
        if merged.is_dir() and not os.path.ismount(merged):
            merged.rmdir()


@variant("SIZ", "DIF-007", "DIF-019", violates=("SIZ-002",))
class SizeIsNotCounted(Variant):
    """apply_diff returns 0 instead of the size."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        super().apply_diff(id, parent, diff)
        return 0


@variant("DIF", "CHG-00", "SIZ")
class ReadsAllFirst(Variant):
    """apply_diff reads the whole archive before it starts, diff before it returns."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        return super().apply_diff(id, parent, io.BytesIO(diff.read()))

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        with super().diff(id, parent) as stream:
            return io.BytesIO(stream.read())


@variant("ARC-007", "ARC-013", "CHG-01", "DIF-006", "LIF-024", "IDM", "MNT-018", "LIF-00")
class ClaimsLittle(Variant):
    """The driver claims only mounting and restarting."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.capabilities = frozenset({Capability.MOUNTING, Capability.RESTARTABLE})


@variant("LIF-028", "MNT-022", "LIF-012", "DIF-019", "CLN-002")
class KnowsNoChanges(Variant):
    """The driver has no verbs for changes and sizes, as containerd's snapshotters."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.capabilities = frozenset(self.capabilities or Capability) - {
            Capability.CHANGES,
            Capability.DIFF_SIZE,
        }

    def changes(self, id: str, parent: str = "") -> list[Change]:
        raise NotSupported("changes", "there is no such verb")

    def diff_size(self, id: str, parent: str = "") -> int:
        raise NotSupported("diff_size", "there is no such verb")

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        super().apply_diff(id, parent, io.BytesIO(data))
        return len(data)


@variant("DIF-021")
class UnpacksCompressed(Variant):
    """apply_diff accepts gzip, as in containers-storage."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return super().apply_diff(id, parent, io.BytesIO(data))


@variant("LIF-002", "LIF-026", "INI-015", "INI-018", "IDM-002", "IDM-003", "DIF-011", "CHG-022")
class RootsOfFedora(Variant):
    """The root of a new layer has mode 0555, which the driver declares."""

    root_mode = 0o555

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if not parent:
            (self.home / id / "diff").chmod(self.root_mode)


@variant(
    "CON-001",
    "CON-002",
    "CLN-006",
    "LIF-008",
    "LIF-016",
    "MNT-002",
    "INI-011",
    "DIF-023",
    "LIM-002",
    "QUO-004",
    "MET-00",
)
class IndexWithFirstRemoval(Variant):
    """The store creates its index file at the first removal, and keeps it."""

    def remove(self, id: str) -> None:
        known = id and self.wrapped.exists(id)
        super().remove(id)
        if known:
            (self.home / "index.db").touch()


@variant("LIF-030", "CRS-025", "CLN-012", "MNT-029")
class BooksWithFirstRemoval(Variant):
    """The store writes an index of two pages at the first removal, and keeps it."""

    def remove(self, id: str) -> None:
        known = id and self.wrapped.exists(id)
        super().remove(id)
        if known:
            with suppress(OSError):
                (self.home / "removed.db").write_bytes(bytes(8000))


class _RenamesOptions(Variant):
    """Has options with another prefix, which a subclass chooses."""

    name: ClassVar[str] = "mydriver"

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        for option in options:
            if "=" in option and not option.startswith(f"{self.name}."):
                raise PrerequisitesNotMet(f"unknown option {option}", f"there are {self.name}.*")
        named = [option.replace(f"{self.name}.", "overlay2.", 1) for option in options]
        super().__init__(home, named, uid_maps, gid_maps)


@variant("INI-00", "INI-011", "KRN-010", "ERR-011")
class OptionsUnderItsOwnName(_RenamesOptions):
    """The driver has another name, which is also the prefix of its options."""

    def __str__(self) -> str:
        """Return the name of the variant."""
        return self.name


@variant("INI-00", "INI-011", "KRN-010", "ERR-011")
class OptionsUnderADeclaredPrefix(_RenamesOptions):
    """The prefix of the options is a declared word, not the driver's name."""

    name = "my"
    option_prefix = "my"


@variant("INI-004", "INI-005", "INI-006")
class OverrideIsGone(Variant):
    """override_kernel_check is refused like any unknown option."""

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        if any("override_kernel_check" in option for option in options):
            raise PrerequisitesNotMet("unknown option override_kernel_check", "leave it out")
        super().__init__(home, options, uid_maps, gid_maps)


@variant("CLN-00", "CLN-010", "LIF-00", "CON-020", violates=("CON-020",))
class WorksInAPool(Variant):
    """get runs in threads of a pool, which end when the process ends; a forked child has none."""

    deadline = 30

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._pool = ThreadPoolExecutor(2)

    def get(self, id: str, mount_label: str = "") -> Path:
        return self._pool.submit(super().get, id, mount_label).result()


@variant("CLN-00", "CLN-010", "LIF-00")
class HasADaemonThread(Variant):
    """A daemon thread waits for work until the process ends."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        threading.Thread(target=threading.Event().wait, daemon=True).start()


@variant("CON-001", "CON-002", "CLN-006", "LIF-008", "LIF-017", "LIM-002", "INI-011")
class ParentsAreMarked(Variant):
    """A layer's directory gets a file when it first becomes a parent, as in Docker."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        if parent:
            (self.home / parent / "committed").touch()


@variant("CRS-0")
class SaysThatALayerIsIncomplete(Variant):
    """A layer whose create or apply_diff was interrupted exists, and can only be removed, as with
    the flag `incomplete` of containers-storage.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._marks = self.home / "incomplete"
        self._marks.mkdir(exist_ok=True)

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        with self._marked(id):
            super().make(id, parent, storage_opt)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        if not self.wrapped.exists(id):
            return super().apply_diff(id, parent, diff)
        with self._marked(id):
            return super().apply_diff(id, parent, diff)

    def exists(self, id: str) -> bool:
        return super().exists(id) or self._is_marked(id)

    def get(self, id: str, mount_label: str = "") -> Path:
        self._require_whole(id)
        return super().get(id, mount_label)

    def remove(self, id: str) -> None:
        super().remove(id)
        if self._is_marked(id):
            (self._marks / id).unlink()

    @contextmanager
    def _marked(self, id: str) -> Iterator[None]:
        self._require_whole(id)
        (self._marks / id).touch(exist_ok=False)
        try:
            yield
        finally:
            (self._marks / id).unlink()
            self._sync()

    def _sync(self) -> None:
        """Have a power cut not bring the mark of a whole layer back.

        The layer is complete: an error here does not make its creation fail.
        """
        with suppress(OSError):
            descriptor = os.open(self._marks, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _require_whole(self, id: str) -> None:
        if self._is_marked(id):
            raise DriverError(f"layer {id} is incomplete", "remove it")

    def _is_marked(self, id: str) -> bool:
        return bool(id) and (self._marks / id).exists()


@variant("CRS-0")
class KeepsAnIndex(Variant):
    """The ids of all layers are in a file, which Init creates and each change replaces."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._write()

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, storage_opt)
        self._write()

    def remove(self, id: str) -> None:
        super().remove(id)
        self._write()

    def _write(self) -> None:
        """Write it beside its place and rename it; after a crash, Init does that again.

        It is made of the home, so that a full disk is no reason for a verb to fail.
        """
        ids = sorted(path.parent.name for path in self.home.glob("[!.]*/diff"))
        beside = self.home / ".index"
        with suppress(OSError):
            beside.write_text("\n".join(ids))
            beside.rename(self.home / "index")
