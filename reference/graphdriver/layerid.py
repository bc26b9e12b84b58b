"""Validation of layer ids, which become directory names (CVE-2014-9358)."""

import re

from graphdriver.errors import InvalidLayerId

__all__ = ["check"]

_LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# The name of overlay2's directory of short links, which is beside the layers.
_RESERVED = {"l"}


def check(id: str) -> str:
    """Return `id` if it is a valid layer id. Raises InvalidLayerId."""
    if not isinstance(id, str) or not _LEGAL.fullmatch(id) or id in _RESERVED:
        raise InvalidLayerId(
            f"{id!r:.200} is not a layer id",
            "use 1 to 128 of A-Z a-z 0-9 _ . - with a letter or digit first, and not 'l'",
        )
    return id
