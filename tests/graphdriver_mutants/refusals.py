"""Mutants whose refusals are errors like any other: no caller can tell them apart."""

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

_TEXT_ONLY = "moby: errors of text only, which callers had to search for words"


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
            return getattr(self.sound, verb)(*arguments)
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
    """A bad id is an error like any other."""

    loses = (InvalidLayerId,)


@mutant("ERR-002", bug="moby #23418: a layer that is not there, told by searching the text")
class NotFoundIsAnyError(Plain):
    """A layer that is not there is an error like any other."""

    loses = (LayerNotFound,)


@mutant("ERR-003", bug="containers/storage: ErrDuplicateID came after errors of text only")
class ExistsIsAnyError(Plain):
    """An id that exists is an error like any other."""

    loses = (LayerExists,)


@mutant("ERR-004", bug="moby: EBUSY of a removal, wrapped into a text")
class InUseIsAnyError(Plain):
    """A removal that has to wait is an error like any other."""

    loses = (LayerInUse,)


@mutant("ERR-005", bug=_TEXT_ONLY)
class DepthIsAnyError(Plain):
    """A chain that is too long is an error like any other."""

    loses = (MaxDepthExceeded,)


@mutant("ERR-006", bug="moby overlay2: cannot mount layer, mount label too large: a text")
class LabelIsAnyError(Plain):
    """A label that does not fit is an error like any other."""

    loses = (MountOptionsTooLong,)


@mutant("ERR-007", bug="moby pkg/archive: errors of archive/tar, as they come")
class ArchiveIsAnyError(Plain):
    """A bad archive is an error like any other."""

    loses = (BadArchive,)


@mutant("ERR-008", "ERR-010", bug="moby: errors of Init other than ErrNotSupported end the daemon")
class InitFailsAnyhow(Plain):
    """What the host cannot do is an error like any other."""

    loses = (NotSupported, IncompatibleFS)


@mutant("ERR-009", bug="moby overlay2: an error of text only, which no caller can tell apart")
class QuotaErrorIsAnyError(Plain):
    """A size that is refused is an error like any other."""

    loses = (QuotaNotSupported,)


@mutant("ERR-011", bug="moby: options are refused with errors of text only")
class OptionIsAnyError(Plain):
    """An option that is refused is an error like any other."""

    loses = (PrerequisitesNotMet,)
