"""Mutants of quota. `needs` of some is a file system with project quota."""

import itertools
from collections.abc import Mapping
from typing import Any

from graphdriver.errors import PrerequisitesNotMet, QuotaNotSupported
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("QUO-004", bug="options that are ignored if they are not supported")
class SizeWithoutQuota(Mutant):
    """A size is ignored if the file system has no project quota."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except QuotaNotSupported:
            super().make(id, parent, None)


@mutant("QUO-004", bug="moby #40709, with a quota")
class RefusedSizeLeavesLayer(Mutant):
    """A create with a refused size leaves the layer's directory."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except QuotaNotSupported:
            (self.home / id / "diff").mkdir(parents=True)
            raise


@mutant("QUO-002", bug="a size parsed with int()")
class SizesAreNumbers(Mutant):
    """A size is a number of bytes; units are refused."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        for value in (storage_opt or {}).values():
            if not value.isdigit():
                raise PrerequisitesNotMet(f"{value} is no number")
        super().make(id, parent, storage_opt)


@mutant("QUO-001", bug="moby #24771: a size that is stored but not set", needs="project_quota")
class SizeNotSet(Mutant):
    """A size is accepted, but no limit is set."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, None)


@mutant(
    "QUO-005", bug="moby #42832: after a restart project ids start again", needs="project_quota"
)
class ProjectsNumberedAnew(Mutant):
    """After a restart the first new layer gets the project id of an existing one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        quota = self.wrapped._quota  # type: ignore[attr-defined]
        numbers = itertools.count(1_000_001)
        quota._free_project = lambda: next(numbers)


@mutant(
    "QUO-006",
    bug="moby vfs: the limit applies to the copy, which includes the parent's files",
    needs="project_quota",
)
class ParentCounts(Mutant):
    """The size limit includes the files of the parent."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        size = (storage_opt or {}).get("size", "")
        if parent and size[:-1].isdigit() and size.endswith("M"):
            left = (int(size[:-1]) << 20) - self.wrapped.diff_size(parent)
            storage_opt = {**(storage_opt or {}), "size": str(max(left, 1 << 20))}
        super().make(id, parent, storage_opt)
