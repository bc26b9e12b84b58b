"""Mutants of quota. Those that need a file system with quotas of projects say so: `needs`."""

import itertools
from collections.abc import Mapping
from typing import Any

from graphdriver.errors import PrerequisitesNotMet, QuotaNotSupported
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("QUO-004", bug="options that cannot be followed are passed over")
class SizeWithoutQuota(Mutant):
    """Where there is no quota a size means nothing."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except QuotaNotSupported:
            super().make(id, parent, None)


@mutant("QUO-004", bug="moby #40709, by way of the quota")
class RefusedSizeLeavesLayer(Mutant):
    """A size that is refused leaves the layer's directory."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except QuotaNotSupported:
            (self.home / id / "diff").mkdir(parents=True)
            raise


@mutant("QUO-002", bug="a size read with int()")
class SizesAreNumbers(Mutant):
    """A size is a number of bytes and has no unit."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        for value in (storage_opt or {}).values():
            if not value.isdigit():
                raise PrerequisitesNotMet(f"{value} is no number")
        super().make(id, parent, storage_opt)


@mutant("QUO-001", bug="moby #24771: a size that was stored and never set", needs="project_quota")
class SizeNotSet(Mutant):
    """A size is understood, and no limit set."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        super().make(id, parent, None)


@mutant(
    "QUO-005", bug="moby #42832: after a restart projects are numbered anew", needs="project_quota"
)
class ProjectsNumberedAnew(Mutant):
    """After a restart the first new layer gets the project of an old one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        quota = self.sound._quota  # type: ignore[attr-defined]
        numbers = itertools.count(1_000_001)
        quota._free_project = lambda: next(numbers)


@mutant(
    "QUO-006",
    bug="moby vfs: a size holds for the copy, of which the parent's files are part",
    needs="project_quota",
)
class ParentCounts(Mutant):
    """A size holds for what lies below as well."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        size = (storage_opt or {}).get("size", "")
        if parent and size[:-1].isdigit() and size.endswith("M"):
            left = (int(size[:-1]) << 20) - self.sound.diff_size(parent)
            storage_opt = {**(storage_opt or {}), "size": str(max(left, 1 << 20))}
        super().make(id, parent, storage_opt)
