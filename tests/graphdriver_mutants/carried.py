"""Mutants whose archives lose the root directory, hard links, or deletions."""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphdriver.errors import BadArchive
from graphdriver_mutants.registry import Mutant, mutant
from graphdriver_mutants.rewriting import Member, RewritesDiff, archive_of, members_of

__all__: list[str] = []


@mutant("DIF-052", bug="moby #41261")
class RootIsNoMember(RewritesDiff):
    """diff omits the root directory."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if member.name.strip("./"):
                yield member, data


@mutant("DIF-056", "DIF-057", bug="moby #41261, fixed for mode and owner only")
class RootHasNoAttributes(RewritesDiff):
    """diff writes the root directory without its xattrs."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if not member.name.strip("./"):
                member.pax_headers = {}
            yield member, data


@mutant(
    "DIF-052", bug="an unpacker that creates ./ with MkdirAll, which accepts the existing directory"
)
class RootOfAnArchiveIsIgnored(Mutant):
    """apply_diff ignores the metadata of the root directory."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff, then restore the metadata of the root."""
        root = self.home / id / "diff"
        before = root.stat()
        size = super().apply_diff(id, parent, diff)
        os.chown(root, before.st_uid, before.st_gid)
        root.chmod(stat.S_IMODE(before.st_mode))
        return size


@mutant("DIF-053", bug="moby #5632")
class LinksToLowerFilesAreCopies(RewritesDiff):
    """A new hard link to a file of the parent is written as a separate file with data."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, rewritten if there is a parent."""
        if not parent:
            return self.wrapped.diff(id, parent)
        return super().diff(id, parent)

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        written: dict[str, Member] = {}
        for member, data in members:
            if member.islnk() and member.linkname in written:
                old, data = written[member.linkname]
                member.type, member.linkname = old.type, ""
                member.pax_headers = dict(old.pax_headers)
                member.size = len(data)
            elif member.isreg():
                written[member.name] = member, data
            yield member, data


@mutant("DIF-054", bug="dagger #13844; fuse-overlayfs #136")
class OpaqueAncestorsForgotten(Mutant):
    """The flattened diff contains lower files below a subdirectory of an opaque directory."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, with deleted entries of recreated directories."""
        with super().diff(id, parent) as stream:
            members = members_of(stream.read())
        stack = self.wrapped.get_metadata(id).get("LowerDir", "")
        if parent or not stack:
            return archive_of(members)
        layers = [self.home / id / "diff", *map(Path, stack.split(":"))]
        known = {member.name.rstrip("/") for member, _ in members}
        returned: list[Member] = []
        for member, _ in members:
            name = member.name.rstrip("/")
            if member.isdir() and name.strip("."):
                for path in self._merged(layers, name):
                    if f"{name}/{path.name}" not in known:
                        known.add(f"{name}/{path.name}")
                        made = tarfile.TarInfo(f"{name}/{path.name}")
                        made.size = path.stat().st_size
                        returned.append((made, path.read_bytes()))
        return archive_of([*members, *returned])

    def _merged(self, layers: list[Path], name: str) -> Iterator[Path]:
        """Yield the files of a directory, from the top layer down to the first opaque one."""
        hidden: set[str] = set()
        for layer in layers:
            if not (layer / name).is_dir() or (layer / name).is_symlink():
                if os.path.lexists(layer / name):
                    return
                continue
            for path in (layer / name).iterdir():
                if path.is_file() and path.name not in hidden:
                    yield path
                hidden.add(path.name)
            if "trusted.overlay.opaque" in os.listxattr(layer / name):
                return


@mutant("DIF-055", bug="go-archive #99, Docker 29.7.0")
class AbsoluteLinksRefused(Mutant):
    """A hard link with an absolute target is refused as a path that leaves the root."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff; an archive with such a hard link is refused."""
        data = diff.read()
        try:
            links = [member.linkname for member, _ in members_of(data) if member.islnk()]
        except (tarfile.TarError, OSError) as error:
            raise BadArchive(f"no archive: {error}") from error
        for target in links:
            if target.startswith("/"):
                raise OSError(errno.EINVAL, f"invalid hardlink target {target}")
        return super().apply_diff(id, parent, io.BytesIO(data))
