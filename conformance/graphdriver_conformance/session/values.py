"""Two unequal values in a form that shows the difference.

Long values are shortened where they are equal, not at the front: two lists that are truncated to
the same first entries would hide the difference. Layer archives are shown as lists of members.
"""

import io
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["shown", "shown_pair"]

_LONGEST = 240
_AROUND = 60
_MOST_ENTRIES = 12
_BLOCK = 512


def shown(value: object) -> str:
    """Return one value, shortened if it is long."""
    if isinstance(value, (set, frozenset)):
        return _entries(sorted(map(repr, value)), "{}") if value else "nothing"
    if isinstance(value, bytes) and (members := _members(value)) is not None:
        return f"an archive of {len(members)} members: {_entries(members, '[]')}"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 40]}... ({len(text)} characters)"


def shown_pair(expected: object, actual: object) -> tuple[str, str]:
    """Return both values; of long ones only the parts that differ."""
    if isinstance(expected, bytes) and isinstance(actual, bytes):
        archives = _members(expected), _members(actual)
        if archives[0] is not None and archives[1] is not None:
            if archives[0] == archives[1]:
                return _texts(expected, actual)
            left, right = _sequences(archives[0], archives[1], repr_=str)
            return f"an archive of {left}", f"an archive of {right}"
    whole = shown(expected), shown(actual)
    if max(map(len, whole)) <= _LONGEST - 40 and "characters)" not in whole[0] + whole[1]:
        return whole
    if isinstance(expected, (str, bytes)) and isinstance(actual, (str, bytes)):
        return _texts(expected, actual)
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        return _mappings(expected, actual)
    if _is_set(expected) and _is_set(actual):
        return _sets(expected, actual)
    if isinstance(expected, Sequence) and isinstance(actual, Sequence):
        return _sequences(expected, actual)
    return whole


def _is_set(value: object) -> bool:
    return isinstance(value, (set, frozenset))


def _sets(expected: Any, actual: Any) -> tuple[str, str]:
    common = len(expected & actual)
    missing, extra = sorted(map(repr, expected - actual)), sorted(map(repr, actual - expected))
    return (
        f"{common} common entries and {_entries(missing, '{}')}",
        f"{common} common entries and {_entries(extra, '{}')}",
    )


def _mappings(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> tuple[str, str]:
    keys = [key for key in {**expected, **actual} if _differs(key, expected, actual)]
    common = len({**expected, **actual}) - len(keys)

    def of(mapping: Mapping[Any, Any]) -> str:
        rows = [f"{key!r}: {mapping[key]!r}" for key in keys if key in mapping]
        return f"{common} equal entries and {_entries(rows, '{}')}"

    return of(expected), of(actual)


def _differs(key: object, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return key not in one or key not in other or bool(one[key] != other[key])


def _sequences(one: Sequence[Any], other: Sequence[Any], repr_: Any = repr) -> tuple[str, str]:
    start = _common(one, other)
    end = _common(one[start:][::-1], other[start:][::-1])

    def of(values: Sequence[Any]) -> str:
        middle = [repr_(value) for value in values[start : len(values) - end]]
        parts = [f"... {start} equal"] * bool(start) + middle[:_MOST_ENTRIES]
        if len(middle) > _MOST_ENTRIES:
            parts.append(f"... {len(middle) - _MOST_ENTRIES} more")
        parts += [f"... {end} equal"] * bool(end)
        return f"{len(values)} entries: [{', '.join(parts)}]"

    return of(one), of(other)


def _texts(one: str | bytes, other: str | bytes) -> tuple[str, str]:
    """Return the context of the first difference of two texts."""
    start = _common(one, other)
    begin = max(0, start - _AROUND // 2)

    def of(text: str | bytes) -> str:
        before = f"... {begin} equal ... " if begin else ""
        after = f" ... ({len(text)} long)" if len(text) > begin + 2 * _AROUND else ""
        return f"{before}{text[begin : begin + 2 * _AROUND]!r}{after}"

    return of(one), of(other)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the length of the common prefix of two sequences."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _entries(texts: Collection[str], brackets: str) -> str:
    kept = [_cut(text) for text in list(texts)[:_MOST_ENTRIES]]
    more = [f"... {len(texts) - _MOST_ENTRIES} more"] * (len(texts) > _MOST_ENTRIES)
    return f"{brackets[0]}{', '.join([*kept, *more])}{brackets[1]}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 40]}..."


def _members(data: bytes) -> list[str] | None:
    """Return the members of a tar archive, None for other bytes."""
    if len(data) < _BLOCK or len(data) % _BLOCK or data[257:262] != b"ustar":
        return None
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            return [" ".join(_member(member)) for member in archive]
    except (tarfile.TarError, ValueError, EOFError, OSError):
        return None


def _member(member: tarfile.TarInfo) -> Iterator[str]:
    yield member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    yield f"type {member.type.decode('ascii', 'replace')} mode {member.mode:o}"
    yield f"{member.uid}:{member.gid} size {member.size} mtime {member.mtime}"
    if member.linkname:
        yield f"to {member.linkname.encode('utf-8', 'surrogateescape')!r}"
    if member.pax_headers:
        yield f"pax {sorted(member.pax_headers)}"
