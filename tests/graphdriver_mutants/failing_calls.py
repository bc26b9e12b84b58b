"""Mutants that are sound until one of their system calls fails."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from graphdriver.errors import DriverError
from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("CRS-040", bug="archivers that log a failed write and go on, as docker-untar's lchown did")
class SwallowsTheFullDisk(Mutant):
    """apply_diff reports success when the disk is full."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        try:
            return super().apply_diff(id, parent, diff)
        except OSError:
            return 0


@mutant("CRS-040", bug="graphdriver overlay2 0.1: remove took EIO for a layer that is not there")
class TakesErrorsForAbsence(Mutant):
    """remove reports success whatever the disk says."""

    def remove(self, id: str) -> None:
        with contextlib.suppress(OSError):
            super().remove(id)


@mutant("CRS-041", bug="moby #36161, on the way out of a failed create")
class CleansUpTooMuch(Mutant):
    """A create that fails removes the links of all layers."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            for link in (self.home / "l").iterdir():
                link.unlink()
            raise


@mutant("CRS-042", bug="moby #40704, #40709")
class LeavesLinksOfFailedLayers(Mutant):
    """A create that fails leaves its short link."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            count = len(os.listdir(self.home / "l"))
            (self.home / "l" / f"FAILED{count:020}").symlink_to(f"../{id}/diff")
            raise


@mutant("CRS-043", bug="a driver that remembers an error, and answers with it from then on")
class NeedsARestart(Mutant):
    """After one error a verb fails until the driver is started again."""

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
    """Whatever went wrong, the layer could not be made."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        try:
            super().make(id, parent, storage_opt)
        except OSError:
            raise DriverError(f"layer {id} could not be made") from None


@mutant("CRS-045", bug="a file that is closed at the end of the function, and not when it fails")
class LeaksWhenItFails(Mutant):
    """A create that fails leaves the home open."""

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        descriptor = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        super().make(id, parent, storage_opt)
        os.close(descriptor)


@mutant("CRS-046", bug="moby overlay2: Put logs a failed unmount at debug level")
class HidesFailedUnmounts(Mutant):
    """put reports success when the layer could not be unmounted."""

    def put(self, id: str) -> None:
        with contextlib.suppress(OSError):
            super().put(id)
