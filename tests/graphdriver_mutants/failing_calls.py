"""Mutants that are correct until one of their system calls fails."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from graphdriver.errors import DriverError
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant(
    "CRS-040", bug="archivers that log a failed write and continue, as docker-untar with lchown"
)
class SwallowsTheFullDisk(Mutant):
    """apply_diff reports success when the disk is full."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        try:
            return super().apply_diff(id, parent, diff)
        except OSError:
            return 0


@mutant("CRS-040", bug="graphdriver overlay2 0.1: remove treats EIO as a missing layer")
class TakesErrorsForAbsence(Mutant):
    """remove reports success after any disk error."""

    def remove(self, id: str) -> None:
        with contextlib.suppress(OSError):
            super().remove(id)


@mutant("CRS-041", bug="moby #36161, in the cleanup of a failed create")
class CleansUpTooMuch(Mutant):
    """A failed create removes the links of all layers."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            for link in (self.home / "l").iterdir():
                link.unlink()
            raise


@mutant("CRS-042", bug="moby #40704, #40709")
class LeavesLinksOfFailedLayers(Mutant):
    """A failed create leaves its short link."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            count = len(os.listdir(self.home / "l"))
            (self.home / "l" / f"FAILED{count:020}").symlink_to(f"../{id}/diff")
            raise


@mutant("CRS-043", bug="a driver that caches an error and returns it afterwards")
class NeedsARestart(Mutant):
    """After one error a verb fails until the driver is restarted."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._failed = ""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        if self._failed:
            raise DriverError(f"the driver is out of order: {self._failed}")
        try:
            super().make(id, parent, storage_opt)
        except OSError as error:
            self._failed = str(error)
            raise


@mutant("CRS-044", bug="errors that are wrapped without %w, or without a cause")
class HidesTheCause(Mutant):
    """create raises an error without a cause for all failures."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            raise DriverError(f"layer {id} could not be made") from None


@mutant("CRS-045", bug="a file that is not closed on the error path")
class LeaksWhenItFails(Mutant):
    """A failed create leaves a descriptor of the home open."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        descriptor = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        super().make(id, parent, storage_opt)
        os.close(descriptor)


@mutant("CRS-046", bug="moby overlay2: Put logs a failed unmount at debug level")
class HidesFailedUnmounts(Mutant):
    """put reports success when the unmount failed."""

    def put(self, id: str) -> None:
        with contextlib.suppress(OSError):
            super().put(id)
