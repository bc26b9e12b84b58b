"""Translate owners between a layer's archive (inside) and its files on disk (outside)."""

from collections.abc import Iterable

from graphdriver.contract import IDMap
from graphdriver.errors import PrerequisitesNotMet, UnmappedId

__all__ = ["IDMapping"]

# 2**32 - 1 is (uid_t) -1: chown(2) leaves the owner unchanged for it, so it is not a valid id.
_NOBODY_AT_ALL = 2**32 - 1


class IDMapping:
    """The uid and gid maps of one driver; without maps, ids inside and outside are the same."""

    __slots__ = ("_gids", "_uids", "identity", "root")

    def __init__(self, uid_maps: Iterable[IDMap] = (), gid_maps: Iterable[IDMap] = ()) -> None:
        self._uids = _checked("uid", tuple(uid_maps))
        self._gids = _checked("gid", tuple(gid_maps))
        self.identity = not self._uids and not self._gids
        self.root: tuple[int, int] = self.to_host(0, 0)
        """Owner, outside, of what belongs to root inside."""

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner on disk for the owner uid:gid in an archive.

        Raises UnmappedId.
        """
        return _outside("uid", self._uids, uid), _outside("gid", self._gids, gid)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner in an archive for the owner uid:gid on disk.

        Raises UnmappedId.
        """
        return _inside("uid", self._uids, uid), _inside("gid", self._gids, gid)


def _checked(kind: str, maps: tuple[IDMap, ...]) -> tuple[IDMap, ...]:
    for entry in maps:
        low = min(entry.container_id, entry.host_id)
        high = max(entry.container_id, entry.host_id) + entry.size - 1
        if entry.size < 1 or low < 0 or high >= _NOBODY_AT_ALL:
            raise PrerequisitesNotMet(
                f"{kind} map {entry} does not lie within 0 to {_NOBODY_AT_ALL - 1}",
                "give a positive size and ids that exist",
            )
    if maps and not any(
        entry.container_id <= 0 < entry.container_id + entry.size for entry in maps
    ):
        raise PrerequisitesNotMet(
            f"the {kind} maps {maps} leave out id 0",
            f"map {kind} 0, the owner of every new layer's root",
        )
    return maps


def _outside(kind: str, maps: tuple[IDMap, ...], inside: int) -> int:
    if not maps and 0 <= inside < _NOBODY_AT_ALL:
        return inside
    for entry in maps:
        if entry.container_id <= inside < entry.container_id + entry.size:
            return entry.host_id + inside - entry.container_id
    raise UnmappedId(f"{kind} {inside} has no {kind} outside", f"extend the {kind} maps")


def _inside(kind: str, maps: tuple[IDMap, ...], outside: int) -> int:
    if not maps:
        return outside
    for entry in maps:
        if entry.host_id <= outside < entry.host_id + entry.size:
            return entry.container_id + outside - entry.host_id
    raise UnmappedId(f"{kind} {outside} on disk has no {kind} inside", f"extend the {kind} maps")
