"""Mutants that lose attributes other than the owner with id maps."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.idmap import Mapped
from graphdriver_mutants.registry import mutant
from graphdriver_mutants.rewriting import Member, RewritesApply, archive_of, members_of

__all__: list[str] = []

_CAPABILITY = "SCHILY.xattr.security.capability"
_ACLS = ("SCHILY.xattr.system.posix_acl_access", "SCHILY.xattr.system.posix_acl_default")


class _MapsLast(Mapped):
    """Lets a subclass change the layer's directory after apply_diff with id maps."""

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        if not self.uid_maps or not data:
            return self.wrapped.apply_diff(id, parent, io.BytesIO(data))
        members = members_of(data)
        size = self.wrapped.apply_diff(id, parent, self.given(data, members))
        self.after(self.home / id / "diff", members)
        return size

    def given(self, data: bytes, members: list[Member]) -> BinaryIO:
        """Return the archive that the wrapped driver gets."""
        return io.BytesIO(data)

    def after(self, upper: Path, members: list[Member]) -> None:
        """Change `upper` after the members were applied."""
        raise NotImplementedError


def _set_again(upper: Path, members: list[Member], *keys: str) -> None:
    """Set xattrs with the unmapped values of the archive."""
    for member, _ in members:
        for key in keys:
            path = upper / member.name
            if key in member.pax_headers and os.path.lexists(path):
                value = member.pax_headers[key].encode("utf-8", "surrogateescape")
                os.setxattr(path, key.removeprefix("SCHILY.xattr."), value, follow_symlinks=False)


@mutant("IDM-007", bug="moby #3845: chown(2) to the mapped owner after chmod(2)")
class SetuidLostByMapping(RewritesApply, Mapped):
    """With id maps setuid and setgid bits are lost."""

    def rewritten(self, members: list[Member]) -> Iterator[Member]:
        for member, data in members:
            if self.uid_maps and member.isreg():
                member.mode &= 0o1777
            yield member, data


@mutant("IDM-008", bug="moby #41724: the capability keeps the root id of the archive")
class CapabilityRootNotMapped(_MapsLast):
    """The root id of a file capability is stored unmapped."""

    def after(self, upper: Path, members: list[Member]) -> None:
        _set_again(upper, members, _CAPABILITY)


@mutant("IDM-009", bug="container-libs #1126: ACLs are copied as bytes")
class AclIdsNotMapped(_MapsLast):
    """Users and groups in ACLs are stored unmapped."""

    def after(self, upper: Path, members: list[Member]) -> None:
        _set_again(upper, members, *_ACLS)


@mutant(
    "IDM-010", bug="moby pkg/archive, UnpackLayer: MkdirAll creates them with the daemon's owner"
)
class ImpliedDirectoriesAreRoots(_MapsLast):
    """Implied directories are owned by root of the host."""

    def after(self, upper: Path, members: list[Member]) -> None:
        known = {member.name for member, _ in members}
        for member, _ in members:
            above = os.path.dirname(member.name)
            while above:
                if above not in known and (upper / above).is_dir():
                    os.chown(upper / above, 0, 0)
                above = os.path.dirname(above)


@mutant("IDM-011", bug="moby #41724: any id of the archive is stored")
class UnmappedAttributesSet(_MapsLast):
    """Ids without a mapping in ACLs and capabilities are stored as they are."""

    def given(self, data: bytes, members: list[Member]) -> BinaryIO:
        self._kept = [(dict(member.pax_headers), member.name) for member, _ in members]
        return archive_of(self._without(members))

    def _without(self, members: list[Member]) -> Iterator[Member]:
        for member, content in members:
            headers = member.pax_headers.items()
            kept = {key: value for key, value in headers if key not in (_CAPABILITY, *_ACLS)}
            member.pax_headers = kept
            yield member, content

    def after(self, upper: Path, members: list[Member]) -> None:
        for (headers, _), (member, _) in zip(self._kept, members, strict=True):
            member.pax_headers = headers
        _set_again(upper, members, _CAPABILITY, *_ACLS)


@mutant(
    "IDM-012", bug="a second pass over the layer, which maps owners and changes directory times"
)
class MappingDatesDirectories(_MapsLast):
    """Directories have the time at which their owners were mapped."""

    def after(self, upper: Path, members: list[Member]) -> None:
        for member, _ in members:
            if member.isdir() and (upper / member.name).is_dir():
                os.utime(upper / member.name, (time.time(), time.time()))
