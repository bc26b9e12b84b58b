"""The drivers inside the `containers-storage` program (github.com/containers/storage) as `Driver`s.

Each verb is one process of about 6 ms. The program is a store that contains drivers: it counts
holds on disk, keeps an index of layers, and refuses to remove a layer with children. Two of its
features would invalidate tests: it accepts an abbreviation of an id, and chooses an id if the given
one is empty; the adapter sends neither.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from graphdriver.contract import Capability, Change, ChangeKind, Driver, IDMap
from graphdriver.errors import DriverError, InvalidLayerId, LayerNotFound, NotSupported
from graphdriver_conformance.drivers import deadline
from graphdriver_conformance.drivers.containers_storage.command import Answer, DriverProgram
from graphdriver_conformance.drivers.containers_storage.gostring import unquoted
from graphdriver_conformance.drivers.probing import follows_lower_symlinks
from graphdriver_conformance.drivers.refusals import refusal
from graphdriver_conformance.drivers.resolve import BadSpec, DriverProcesses, DriverSource, Enter
from graphdriver_conformance.host.environment import umount_below

__all__ = ["ContainersStorageDriver", "source"]

_PROGRAM = "containers-storage"
_SETTINGS = Path(__file__).with_name("containers-storage.conf")
_ROW = re.compile(rb'^(Add|Modify|Delete) (".*")$')
_KINDS = {b"Add": ChangeKind.ADD, b"Modify": ChangeKind.MODIFY, b"Delete": ChangeKind.DELETE}

# Without a parent argument its diff is against the layer's parent, so no driver claims
# FLATTENED_DIFF. Whether apply_diff reads the lower layers is probed.
_ALWAYS = frozenset(
    {
        Capability.RESTARTABLE,
        Capability.USER_XATTRS,
        Capability.HARDLINK_IDENTITY,
        Capability.EXACT_DIFFS,
        Capability.CHANGES,
        Capability.DIFF_SIZE,
        Capability.LONG_NAMES,
        Capability.HOME,
    }
)
_CLAIMS: dict[str, frozenset[Capability]] = {
    "overlay": _ALWAYS
    | {
        Capability.MOUNTING,
        Capability.LAYER_LIMIT,
        Capability.MOUNT_LABEL,
        Capability.CONTENT_EXACT_CHANGES,
    },
    "vfs": _ALWAYS,
    "btrfs": _ALWAYS,
}
_ROOT_MODE = 0o555  # as Fedora's package filesystem has it


class ContainersStorageDriver:
    """The driver `name` of containers-storage, its root being `home`, its run root within."""

    def __init__(
        self,
        name: str,
        home: Path | str,
        options: Sequence[str] = (),
        enter: Callable[[], None] | None = None,
        probed: frozenset[Capability] = frozenset(),
    ) -> None:
        """Ask for its status, which makes the root. Raises DriverProgramMissing, DriverError.

        Every process of the program calls `enter` first; `probed` is claimed beside what always
        holds.
        """
        self._name = name
        self._home = Path(home)
        self._program = DriverProgram(_PROGRAM, _PROGRAM, deadline(), _environment(), enter)
        # The flags stand after the verb: the program wants them there as much as before it.
        self._flags = [f"--graph={home}", f"--run={home}/run", f"--storage-driver={name}"]
        self._flags += [f"--storage-opt={option}" for option in options]
        self.capabilities = _CLAIMS[name] | probed
        if any("mount_program=" in option for option in options):
            self.capabilities -= {Capability.LONG_NAMES, Capability.MOUNT_LABEL}
        self.root_mode = _ROOT_MODE
        self._call("init", "status", "-j")

    def __str__(self) -> str:
        """Return the driver's name, as status has it."""
        return self._name

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """create-layer --readonly."""
        self._create("create", ["--readonly"], id, parent, mount_label, storage_opt)

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """create-layer."""
        self._create("create_read_write", [], id, parent, mount_label, storage_opt)

    def remove(self, id: str) -> None:
        """delete-layer."""
        self._call("remove", "delete-layer", "--", self._exact(id))

    def get(self, id: str, mount_label: str = "") -> Path:
        """Mount; counted by the program, on disk."""
        label = [f"--label={mount_label}"] if mount_label else []
        (row,) = json.loads(self._call("get", "mount", "-j", *label, "--", self._exact(id)))
        if row["error"]:
            raise refusal(row["error"])
        return Path(row["mountpoint"])

    def put(self, id: str) -> None:
        """Unmount."""
        self._call("put", "unmount", "--", self._exact(id))

    def exists(self, id: str) -> bool:
        """exists --layer."""
        try:
            self._call("exists", "exists", "--layer", "--quiet", "--", self._exact(id))
        except DriverError:
            return False
        return True

    def status(self) -> list[tuple[str, str]]:
        """Status."""
        rows = json.loads(self._call("status", "status", "-j"))
        return [(str(label), str(value)) for label, value in rows]

    def get_metadata(self, id: str) -> dict[str, str]:
        """Run `layer`, whose output does not contain the directories of the driver."""
        (row,) = json.loads(self._call("get_metadata", "layer", "-j", "--", self._exact(id)))
        return {key: value for key, value in row.items() if isinstance(value, str)}

    def cleanup(self) -> None:
        """Run `shutdown --force`, which unmounts all layers and the driver's own mount."""
        self._call("cleanup", "shutdown", "--force")

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Run `changes` in text form: its JSON replaces bytes that are not UTF-8."""
        rows = self._call("changes", "changes", "--", *self._pair(id, parent))
        return [_change(row) for row in rows.splitlines()]

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """diff --uncompressed, as a whole: the store is locked for as long as somebody reads."""
        arguments = ["diff", *self._flags, "--uncompressed", "--", *self._pair(id, parent)]
        return _checked(self._program.run("diff", arguments)).output

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Applydiff, which says nothing of the size: diffsize does.

        A fault in that one would be none of applydiff.
        """
        exact = self._exact(id)
        arguments = ["applydiff", *self._flags, "--", exact]
        _checked(self._program.run("apply_diff", arguments, diff)).output.close()
        asked = ["diffsize", *self._flags, "--", *self._pair(id, parent)]
        with _checked(self._program.run("diff_size", asked, enters=False)).output as size:
            return int(size.read())

    def diff_size(self, id: str, parent: str = "") -> int:
        """Diffsize."""
        return int(self._call("diff_size", "diffsize", "--", *self._pair(id, parent)))

    def _create(
        self,
        verb: str,
        flags: list[str],
        id: str,
        parent: str,
        mount_label: str,
        storage_opt: Mapping[str, str] | None,
    ) -> None:
        if storage_opt:
            raise NotSupported(
                f"{verb} of {id!r} with {dict(storage_opt)}", "create-layer has no such flag"
            )
        if mount_label:
            flags = [*flags, f"--label={mount_label}"]
        above = [self._exact(parent)] if parent else []
        self._call(verb, "create-layer", *flags, f"--id={_encoded(id)}", "--", *above)

    def _pair(self, id: str, parent: str) -> list[str]:
        return [self._exact(id), *([self._exact(parent)] if parent else [])]

    def _exact(self, id: str) -> str:
        """Return an id that the program will not take for another. Raises LayerNotFound."""
        encoded = _encoded(id)
        known = self._ids()
        longer = [one for one in known if one.startswith(encoded)]
        if encoded not in known and longer:
            raise LayerNotFound(
                f"there is no layer {id!r}", f"the program would take it for {longer[0]!r}"
            )
        return encoded

    def _ids(self) -> set[str]:
        """Return the ids in the store's index: what `layers` prints, without another process."""
        index = self._home / f"{self._name}-layers" / "layers.json"
        try:
            return {row["id"] for row in json.loads(index.read_bytes() or b"[]")}
        except FileNotFoundError:
            return set()

    def _call(self, verb: str, command: str, *arguments: str) -> bytes:
        """Run a command and return what it prints. Raises DriverError, ProgramHung."""
        with _checked(self._program.run(verb, [command, *self._flags, *arguments])).output as one:
            return one.read()


@dataclass(frozen=True)
class _Factory:
    """Creates the driver `name`; its claims depend on its options, and on probes."""

    name: str
    probed: dict[tuple[str, ...], frozenset[Capability]] = field(
        default_factory=dict, compare=False
    )

    def __call__(
        self,
        home: Path,
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> Driver:
        if uid_maps or gid_maps:
            raise NotSupported(f"{self.name} with id maps", "the program maps layers, not homes")
        key = tuple(options)
        if key not in self.probed:
            self.probed[key] = self._probe(home, options)
        return ContainersStorageDriver(self.name, home, options, probed=self.probed[key])

    def _probe(self, home: Path, options: Sequence[str]) -> frozenset[Capability]:
        """Probe the differences between drivers, on a separate home, which is discarded
        afterwards.
        """
        beside = home.parent if home.parent.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="graphdriver-probe-", dir=beside) as scratch:
            try:
                driver = ContainersStorageDriver(self.name, Path(scratch) / "home", options)
            except DriverError:  # it will be raised for the home, too
                return frozenset()
            try:
                follows = follows_lower_symlinks(driver)
            finally:
                umount_below(Path(scratch))  # the driver's own mount of its home
        return frozenset({Capability.LOWER_SYMLINKS} if follows else ())


@dataclass(frozen=True)
class _Own:
    """No process to start or end: each verb is a process; see OwnProcess."""

    name: str
    enter: Enter | None

    def init(self, home: Path, options: tuple[str, ...]) -> Driver:
        """Create the driver, whose processes call enter."""
        enter = partial(self.enter, only_if_watched=True) if self.enter else None
        return ContainersStorageDriver(self.name, home, options, enter)

    def processes(self) -> list[int]:
        """Return None: no process outlives its verb."""
        return []

    def end(self) -> None:
        """Do nothing."""


class _NoProcesses(DriverProcesses):
    """Nothing to end: no process outlives its verb."""

    def process_of(self, driver: Driver) -> int:
        """Return 0: each verb is a process."""
        return 0


def source(spec: str) -> DriverSource:
    """Return the driver of containers-storage that `spec` names. Raises BadSpec."""
    name = spec.partition(":")[2]
    if name not in _CLAIMS:
        raise BadSpec(f"{spec}: no such driver; there are {', '.join(_CLAIMS)}")

    return DriverSource(
        spec,
        _Factory(name),
        in_process=False,
        offers=frozenset(),
        processes=_NoProcesses(),
        start=lambda enter: _Own(name, enter),
    )


def _encoded(id: str) -> str:
    """Return an id as a command-line argument. Raises InvalidLayerId."""
    if not id:
        raise InvalidLayerId("the id is empty", "the program would choose one")
    if "\0" in id:
        raise InvalidLayerId(f"{id!r} holds a NUL", "no program can be given it")
    return id


def _environment() -> dict[str, str]:
    """Return a configuration without settings: otherwise the machine's would be added to the
    SPEC's.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STORAGE_", "CONTAINERS_STORAGE_"))
    }
    return {**kept, "CONTAINERS_STORAGE_CONF": str(_SETTINGS)}


def _error_in(printed: str) -> str:
    """Return the error in a verb's JSON output, "" if there is none."""
    try:
        (row,) = json.loads(printed)
        return str(row["error"])
    except (ValueError, TypeError, KeyError):
        return ""


def _checked(answer: Answer) -> Answer:
    """Return the answer of a program that succeeded. Raises DriverError."""
    if answer.status:
        # Errors before the verb are printed as if they were the answer. Where the answer has an
        # error, the log on stderr may be about another one.
        with answer.output as output:
            printed = output.read().decode("utf-8", "replace").strip()
        message = _error_in(printed) or answer.complaint or printed
        raise refusal(message or f"the program ended with {answer.status}")
    return answer


def _change(row: bytes) -> Change:
    found = _ROW.match(row)
    if found is None:
        raise DriverError(f"changes printed {row!r}", 'rows are KIND "PATH"')
    return Change(unquoted(found[2]), _KINDS[found[1]])
