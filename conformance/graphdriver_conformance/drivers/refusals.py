"""Error classes from texts of refusals, for programs and protocols without error codes."""

import re

from graphdriver.errors import (
    BadArchive,
    DriverError,
    IncompatibleFS,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    MaxDepthExceeded,
    MountOptionsTooLong,
    NotSupported,
    PrerequisitesNotMet,
    QuotaNotSupported,
)

__all__ = ["refusal"]

# Searched in order. A text without a match is a DriverError, which every requirement accepts if
# it asks for "an error".
_CLASSES: tuple[tuple[str, type[DriverError]], ...] = (
    (r"archive/tar|processing tar|unexpected EOF|invalid tar", BadArchive),
    (r"max depth|too many l(ower|ayer)", MaxDepthExceeded),
    (
        r"(options?|labels?|data)\b.*too (large|long)|options take \d|mount (data|label)",
        MountOptionsTooLong,
    ),
    (r"\bquotas?\b", QuotaNotSupported),
    (
        r"prerequisites|unknown option|does not support \S* ?options|unable to parse key/value"
        r"|invalid key/value",
        PrerequisitesNotMet,
    ),
    (
        r"incompatible|backing file system is unsupported|wrong file ?system|is not a btrfs"
        r"|not supported over",
        IncompatibleFS,
    ),
    (r"not supported|unsupported", NotSupported),
    (
        r"invalid (layer )?(id|name|argument .*key)|identifier .* must match"
        r"|may become a directory name",
        InvalidLayerId,
    ),
    (r"already (in use|exists)|file exists", LayerExists),
    (r"in use|has child|cannot remove|\bbusy\b|is held", LayerInUse),
    (
        r"not found|no such (file|layer|id)|does not exist|not known|not a layer|no layer"
        r"|unknown layer",
        LayerNotFound,
    ),
)


# Ids and paths are removed from the text: a layer may be called busybox, a home be below quota/.
_NAMES = re.compile(r"""(["'`]).*?\1|(?<!\S)[(=:]*/\S*""", re.DOTALL)


def refusal(text: str) -> DriverError:
    """Return the error for `text`, the message of a program."""
    message = _NAMES.sub(" ", text)
    found = next((kind for words, kind in _CLASSES if re.search(words, message, re.I)), DriverError)
    return found(text)
