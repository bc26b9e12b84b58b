"""Texts of drivers, made harmless for a terminal, a page or a file."""

import re

__all__ = ["printable"]

# Control characters, halves of surrogate pairs, characters that turn the direction of the text
# around, and those that are no characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    r"""Return the text with what cannot be printed as Python would escape it, such as `\x1b`."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
