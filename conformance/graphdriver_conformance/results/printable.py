"""Escaping of drivers' texts for a terminal, a page or a file."""

import re

__all__ = ["printable"]

# Control characters, halves of surrogate pairs, characters that change the direction of the text,
# and noncharacters.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    r"""Return the text with unprintable characters escaped as in Python, such as `\x1b`."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
