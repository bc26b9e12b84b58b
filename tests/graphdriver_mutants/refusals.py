"""Mutants whose refusals have no class of their own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from graphdriver.contract import Change, IDMap
from graphdriver.errors import (
    BadArchive,
    DriverError,
    IncompatibleFS,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    MaxDepthExceeded,
    MountOptionsTooLong,
    NotSupported,
    PrerequisitesNotMet,
    QuotaNotSupported,
)
from graphdriver_mutants.registry import Mutant, mutant

__all__ = ["Plain"]

_TEXT_ONLY = "moby: untyped errors, in whose text callers have to search"


class Plain(Mutant):
    """Turns errors of the classes in `loses` into plain DriverErrors with the same text."""

    loses: ClassVar[tuple[type[DriverError], ...]] = ()

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except self.loses as error:
            raise DriverError(str(error)) from error

    def _plainly(self, verb: str, *arguments: Any) -> Any:
        try:
            return getattr(self.wrapped, verb)(*arguments)
        except self.loses as error:
            raise DriverError(str(error)) from error

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        self._plainly("create_read_write", id, parent, "", storage_opt)

    def remove(self, id: str) -> None:
        self._plainly("remove", id)

    def get(self, id: str, mount_label: str = "") -> Path:
        return Path(self._plainly("get", id, mount_label))

    def put(self, id: str) -> None:
        self._plainly("put", id)

    def get_metadata(self, id: str) -> dict[str, str]:
        found: dict[str, str] = self._plainly("get_metadata", id)
        return found

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        stream: BinaryIO = self._plainly("diff", id, parent)
        return stream

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found: list[Change] = self._plainly("changes", id, parent)
        return found

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        return int(self._plainly("apply_diff", id, parent, diff))

    def diff_size(self, id: str, parent: str = "") -> int:
        return int(self._plainly("diff_size", id, parent))


@mutant("ERR-001", bug=_TEXT_ONLY)
class InvalidIdIsAnyError(Plain):
    """An invalid id raises a plain DriverError."""

    loses = (InvalidLayerId,)


@mutant("ERR-002", bug="moby #23418: a missing layer is recognized by the text of the error")
class NotFoundIsAnyError(Plain):
    """A missing layer raises a plain DriverError."""

    loses = (LayerNotFound,)


@mutant("ERR-003", bug="containers/storage: ErrDuplicateID was added after untyped errors")
class ExistsIsAnyError(Plain):
    """An existing id raises a plain DriverError."""

    loses = (LayerExists,)


@mutant("ERR-004", bug="moby: EBUSY of a removal is wrapped into a text")
class InUseIsAnyError(Plain):
    """remove of a layer in use raises a plain DriverError."""

    loses = (LayerInUse,)


@mutant("ERR-005", bug=_TEXT_ONLY)
class DepthIsAnyError(Plain):
    """A chain beyond the depth limit raises a plain DriverError."""

    loses = (MaxDepthExceeded,)


@mutant("ERR-006", bug="moby overlay2: cannot mount layer, mount label too large: an untyped error")
class LabelIsAnyError(Plain):
    """A mount label that does not fit raises a plain DriverError."""

    loses = (MountOptionsTooLong,)


@mutant("ERR-007", bug="moby pkg/archive: unwrapped errors of archive/tar")
class ArchiveIsAnyError(Plain):
    """A malformed archive raises a plain DriverError."""

    loses = (BadArchive,)


@mutant("ERR-008", "ERR-010", bug="moby: errors of Init other than ErrNotSupported end the daemon")
class InitFailsAnyhow(Plain):
    """A missing feature of the host raises a plain DriverError."""

    loses = (NotSupported, IncompatibleFS)


@mutant("ERR-009", bug="moby overlay2: an untyped error, which callers cannot distinguish")
class QuotaErrorIsAnyError(Plain):
    """A refused size raises a plain DriverError."""

    loses = (QuotaNotSupported,)


@mutant("ERR-011", bug="moby: options are refused with untyped errors")
class OptionIsAnyError(Plain):
    """A refused option raises a plain DriverError."""

    loses = (PrerequisitesNotMet,)
