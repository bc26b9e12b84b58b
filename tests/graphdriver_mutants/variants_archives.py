"""Sound drivers that unpack archives in another way; see variants."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.rewriting import clean, members_of
from graphdriver_mutants.variants import Variant, variant

__all__: list[str] = []


@variant("DIF-033", "DIF-034", "DIF-040", "DIF-055", "DIF-058", "DIF-060", "DIF-061")
class ImpliedDirectoriesInherit(Variant):
    """Directories without an entry get the bit and the group of a setgid directory, from mkdir(2).

    As in the vfs driver of containers-storage; docs/rulings.md, 21, asks for no less access.
    """

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        data = diff.read()
        size = super().apply_diff(id, parent, io.BytesIO(data))
        names = [clean(member.name) for member, _ in members_of(data)] if data else []
        upper = self.home / id / "diff"
        lowers = [Path(one) for one in self.get_metadata(id).get("LowerDir", "").split(":") if one]
        made: set[str] = set()
        for count, name in enumerate(names):
            for above in reversed(_above(name)):
                is_new = above not in made and not any((one / above).exists() for one in lowers)
                made.add(above)
                outer = os.path.dirname(above)
                # A directory whose own entry comes later has no setgid bit yet.
                is_set = outer in names[:count] or outer not in names
                if is_new and is_set and above not in names:
                    _inherit(upper / outer, upper / above)
            made.add(name)
        return size


def _above(name: str) -> list[str]:
    """Return the directories above a name, the innermost first, without the root."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _inherit(outer: Path, inner: Path) -> None:
    """Give a directory the group and the setgid bit of the directory that contains it."""
    above, found = outer.lstat(), inner.lstat()
    if above.st_mode & stat.S_ISGID and stat.S_ISDIR(found.st_mode):
        os.chown(inner, -1, above.st_gid)
        inner.chmod(stat.S_IMODE(found.st_mode) | stat.S_ISGID)
