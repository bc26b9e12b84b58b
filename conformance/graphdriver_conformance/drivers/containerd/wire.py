"""Protocol-buffer messages (proto3) as frozen dataclasses: the few fields that are needed.

containerd's messages need three wire types, so a compiler and its runtime would be more to keep
than these lines are. Unknown fields are skipped, as the format asks.
"""

from collections.abc import Iterator
from dataclasses import field, fields
from typing import Any, Self, cast

__all__ = ["Message", "blob", "message", "messages", "number", "text", "texts"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class Message:
    """A message; its fields are made by the functions below."""

    def encode(self) -> bytes:
        """Return the bytes for the wire; what has its default is left out."""
        out = bytearray()
        for one in fields(cast(Any, self)):
            value = getattr(self, one.name)
            for each in value if isinstance(value, tuple) else (value,):
                if each or isinstance(value, tuple):
                    out += _encoded(one.metadata["number"], each)
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message that `data` is. Raises ValueError."""
        known = {one.metadata["number"]: one for one in fields(cast(Any, cls))}
        found: dict[str, Any] = {}
        for tag, value in _decoded(data):
            if tag not in known:
                continue
            kind, name = known[tag].metadata["kind"], known[tag].name
            meant = _converted(kind, value)
            several = known[tag].metadata["several"]
            found[name] = (*found.get(name, ()), meant) if several else meant
        return cls(**found)


def text(tag: int) -> Any:
    """Return a field of the type string, a str."""
    return _field(tag, str, "")


def number(tag: int) -> Any:
    """Return a field of an integer type or an enum; negative numbers are not needed."""
    return _field(tag, int, 0)


def blob(tag: int) -> Any:
    """Return a field of the type bytes."""
    return _field(tag, bytes, b"")


def texts(tag: int) -> Any:
    """Return a repeated field of strings."""
    return _field(tag, str, (), several=True)


def message(tag: int, kind: type[Message]) -> Any:
    """Return a field that is a message, or None."""
    return _field(tag, kind, None)


def messages(tag: int, kind: type[Message]) -> Any:
    """Return a repeated field of messages."""
    return _field(tag, kind, (), several=True)


def _field(tag: int, kind: type, default: object, *, several: bool = False) -> Any:
    return field(default=default, metadata={"number": tag, "kind": kind, "several": several})


def _encoded(tag: int, value: object) -> bytes:
    if isinstance(value, int):
        return _varint(tag << 3 | _VARINT) + _varint(value)
    if isinstance(value, Message):
        raw = value.encode()
    else:
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value  # type: ignore[assignment]
    return _varint(tag << 3 | _LENGTH) + _varint(len(raw)) + raw


def _converted(kind: type, value: int | bytes) -> object:
    if isinstance(value, int):
        return value
    if issubclass(kind, Message):
        return kind.decode(value)
    return value.decode("utf-8", "surrogateescape") if kind is str else value


def _decoded(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if wire_type == _LENGTH:
            length, at = _read_varint(data, at)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} is none of proto3")
        if at + length > len(data):
            raise ValueError(f"a field of {length} bytes is cut short")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
    raise ValueError("a number is cut short")
