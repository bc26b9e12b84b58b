"""Mutants that write outside the layer: first the escape, then the correct apply_diff."""

import io
import os
import tarfile
from abc import abstractmethod
from contextlib import suppress
from functools import cached_property
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, is_whiteout, members_of

__all__: list[str] = []


class BreaksOut(Mutant):
    """Calls `escape` for each member before apply_diff."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        view = os.fspath(self.wrapped.get(id))
        try:
            for one in members_of(data):
                self._try(view, one)
        except tarfile.TarError:
            pass
        finally:
            self.wrapped.put(id)
        return super().apply_diff(id, parent, io.BytesIO(data))

    def _try(self, view: str, one: Member) -> None:
        with suppress(OSError, ValueError):
            self.escape(view, *one)

    @abstractmethod
    def escape(self, view: str, member: tarfile.TarInfo, content: bytes) -> None:
        """Change a file outside the layer by one member."""


@mutant("SEC-001", bug="CVE-2014-6407: symlinks of the archive are followed")
class SymlinksFollowed(BreaksOut):
    """Members are written to their paths through symlinks that leave the layer."""

    def escape(self, view: str, member: tarfile.TarInfo, content: bytes) -> None:
        path = os.path.join(view, member.name)
        if os.path.islink(os.path.dirname(path)) and member.isreg():
            with open(path, "wb") as opened:
                opened.write(content)


@mutant("SEC-001", bug="CVE-2007-4559, CVE-2014-9357: `..` in names is not checked")
class DotsObeyed(BreaksOut):
    """A member `../victim/new` is written outside the layer."""

    def escape(self, view: str, member: tarfile.TarInfo, content: bytes) -> None:
        if ".." in member.name.split("/") and member.isreg() and not is_whiteout(member):
            with open(os.path.join(view, member.name.lstrip("/")), "wb") as opened:
                opened.write(content)


@mutant("SEC-001", bug="moby pkg/archive, TestUntarInvalidHardlink: a hard link to any path")
class HardLinksLeaveLayer(BreaksOut):
    """A member with the path of a hard link is written to the link's target, also outside."""

    def escape(self, view: str, member: tarfile.TarInfo, content: bytes) -> None:
        if member.islnk():
            self._targets[member.name] = os.path.join(view, member.linkname.lstrip("/"))
        elif member.isreg() and member.name in self._targets:
            with open(self._targets[member.name], "r+b") as opened:
                opened.write(content)

    @cached_property
    def _targets(self) -> dict[str, str]:
        return {}


@mutant("SEC-001", bug="containerd TestBreakouts: whiteouts through symlinks")
class WhiteoutsLeaveLayer(BreaksOut):
    """A whiteout below a symlink to a directory deletes files in the symlink's target."""

    def escape(self, view: str, member: tarfile.TarInfo, content: bytes) -> None:
        above, base = os.path.split(member.name)
        if os.path.islink(os.path.join(view, above)):
            os.unlink(os.path.join(view, above, base.removeprefix(".wh.")))
