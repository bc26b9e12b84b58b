"""Decoding of strings in Go's %q format to bytes."""

import re

__all__ = ["unquoted"]

_SHORT = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\\": b"\\",
    b'"': b'"',
}
_ESCAPE = re.compile(rb'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([abfnrtv\\"]))')


def unquoted(text: bytes) -> bytes:
    r"""Return the bytes of `"..."`: \xff is a byte, \u200b a rune. Raises ValueError."""
    if len(text) < 2 or text[:1] != b'"' or text[-1:] != b'"':
        raise ValueError(f"{text!r} is not quoted as Go does it")
    return _ESCAPE.sub(_meant, text[1:-1])


def _meant(match: re.Match[bytes]) -> bytes:
    byte, short_rune, long_rune, letter = match.groups()
    if byte is not None:
        return bytes([int(byte, 16)])
    if letter is not None:
        return _SHORT[letter]
    return chr(int(short_rune or long_rune, 16)).encode()
