"""Mutants of the layer that diff and changes compare with, and of streams that fail."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphdriver.contract import Change, ChangeKind
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, RewritesDiff, archive_of, members_of

__all__: list[str] = []


def _lowers(driver: Mutant, id: str) -> list[Path]:
    """Return the directories below a layer, topmost first."""
    return [Path(one) for one in driver.get_metadata(id).get("LowerDir", "").split(":") if one]


@mutant("CHG-016", "DIF-005", bug="moby 1.12: Changes and Diff ignore their parent argument")
class AlwaysAgainstTheParent(Mutant):
    """diff and changes ignore the parent argument and compare with the layer's parent."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        return super().changes(id, self._direct(id, parent))

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        return super().diff(id, self._direct(id, parent))

    def _direct(self, id: str, parent: str) -> str:
        below = _lowers(self, id)
        return below[0].parent.name if parent and below else parent


@mutant("CHG-017", bug="moby 1.12: a layer that is not an ancestor is treated as no parent")
class StrangersAreNobody(Mutant):
    """Compared with an unrelated layer, all files are reported as added."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        related = self.home / parent / "diff" in _lowers(self, id)
        return super().changes(id, parent if related else "")


@mutant("CHG-001", bug="docker diff: C / for a container without changes")
class RootAlwaysChanged(Mutant):
    """changes always reports the root directory."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        return [Change(b"/", ChangeKind.MODIFY), *super().changes(id, parent)]


@mutant("CHG-005", bug="an enum that starts with 1")
class KindsFromOne(Mutant):
    """Kinds of changes are numbered 1, 2 and 3 instead of 0, 1 and 2."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        return [Change(one.path, one.kind.value + 1) for one in found]  # type: ignore[arg-type]


@mutant("CHG-014", bug="moby OverlayChanges: a whiteout in a middle layer is treated as a file")
class WhiteoutsCountAsFiles(Mutant):
    """A new file is reported as modified if any lower layer has an entry, even a whiteout."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        below = [os.fsencode(one) for one in _lowers(self, id)]
        return [
            Change(one.path, ChangeKind.MODIFY)
            if parent
            and any(os.path.lexists(lower + one.path) for lower in below)
            and one.kind is ChangeKind.ADD
            else one
            for one in super().changes(id, parent)
        ]


@mutant("CHG-009", bug="a differ that compares size and time, or nothing")
class TypesNotCompared(Mutant):
    """A path that exists before and after is unchanged, even if its type differs."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        below = os.fsencode(self.home / parent / "diff")
        upper = os.fsencode(self.home / id / "diff")
        return [one for one in found if not _swapped(below + one.path, upper + one.path)]


def _swapped(old: bytes, new: bytes) -> bool:
    try:
        return stat.S_IFMT(os.lstat(old).st_mode) != stat.S_IFMT(os.lstat(new).st_mode)
    except OSError:
        return False


@mutant(
    "CHG-019",
    "CHG-023",
    bug="moby's naive differ over fuse-overlayfs: directories of over 40 entries",
)
class LargeDirectoriesMisread(Mutant):
    """Fifos and devices in directories with many entries are reported as deleted."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        below = self.home / parent / "diff"
        names = list(below.iterdir()) if parent else []
        special = [one for one in names if len(names) > 40 and not one.is_file()]
        listed = {one.path for one in found}
        paths = [b"/" + os.fsencode(one.name) for one in special]
        return found + [Change(path, ChangeKind.DELETE) for path in paths if path not in listed]


@mutant(
    "CHG-020", bug="buildkit #2480; containers/storage: copied-up files are reported as changes"
)
class CopiedUpIsChanged(Mutant):
    """Every file in the upper directory is reported as modified."""

    def changes(self, id: str, parent: str = "") -> list[Change]:
        found = super().changes(id, parent)
        upper, listed = self.home / id / "diff", {one.path for one in found}
        files = [b"/" + os.fsencode(p.relative_to(upper)) for p in upper.rglob("*") if p.is_file()]
        return found + [Change(p, ChangeKind.MODIFY) for p in files if parent and p not in listed]


@mutant("CHG-022", bug="a differ that writes regular files and directories only")
class SpecialFilesLeftOut(RewritesDiff):
    """The archive does not contain symlinks, fifos and empty files."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        return (one for one in members if one[0].isdir() or (one[0].isreg() and one[1]))


@mutant("DIF-001", bug="an archive that is not closed: no blocks of zeros")
class EndMissing(Mutant):
    """The archive has no end-of-archive blocks."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        with super().diff(id, parent) as stream:
            return io.BytesIO(stream.read().removesuffix(bytes(1024)))


@mutant("DIF-007", bug="containers/storage #141: directories marked opaque by the kernel")
class EmptyLayerHidesAll(RewritesDiff):
    """The root of an empty layer is exported as opaque."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        marker = tarfile.TarInfo(".wh..wh..opq")
        return iter(members or [(marker, b"")])


@mutant("DIF-016", "DIF-017", bug="moby pkg/archive: errors of the tar writer are logged")
class TroubleIsLogged(Mutant):
    """A file that cannot be read is exported as zeros, and the archive has a regular end."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        return io.BufferedReader(_Quiet(super().diff(id, parent)))


class _Quiet(io.RawIOBase):
    """Reads `stream`; after an error it returns the zeros that complete the archive."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._sent = bytearray()
        self._rest: bytes | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._rest is None:
            try:
                piece = self._stream.read(len(buffer))
            except OSError:
                self._rest = self._ending()
        if self._rest is not None:
            piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        self._sent += piece
        return len(piece)

    def _ending(self) -> bytes:
        position = 0
        while position + 512 <= len(self._sent):
            header = tarfile.TarInfo.frombuf(
                self._sent[position : position + 512], "utf-8", "replace"
            )
            size = 0 if header.islnk() else header.size
            position += 512 + -(-size // 512) * 512
        return bytes(position - len(self._sent) + 1024)

    def close(self) -> None:
        self._stream.close()
        super().close()


@mutant("DIF-035", bug="fuse-overlayfs 1.10: a written file with hard links shows its old content")
class HardLinksAreStale(Mutant):
    """A changed file with hard links in a lower layer is exported with its old content, padded."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        with super().diff(id, parent) as stream:
            members = members_of(stream.read())
        return archive_of(self._stale(one, self.home / parent / "diff") for one in members)

    def _stale(self, one: Member, below: Path) -> Member:
        member, data = one
        old = below / member.name
        if not member.isreg() or not old.is_file() or old.stat().st_nlink < 2:
            return one
        return member, old.read_bytes()[: len(data)].ljust(len(data), b"\0")
