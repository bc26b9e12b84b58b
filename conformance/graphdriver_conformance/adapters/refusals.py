"""From the text of a refusal to one of our errors: for programs that have no other way."""

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
)

__all__ = ["refusal"]

# Looked for in order. What matches none stays a DriverError, which every requirement accepts where
# it asks for "an error".
_CLASSES: tuple[tuple[str, type[DriverError]], ...] = (
    (r"max depth exceeded", MaxDepthExceeded),
    (r"options.*too (large|long)|cannot mount layer, mount (data|label)", MountOptionsTooLong),
    (r"already in use|already exists", LayerExists),
    (r"layer has children|has child|in use by a container|cannot remove", LayerInUse),
    (r"not known|not a layer|not found|does not exist", LayerNotFound),
    (
        r"unknown option|does not support \S* ?options|unable to parse key/value|invalid key/value",
        PrerequisitesNotMet,
    ),
    (r"wrong file ?system|is not a btrfs|not supported over", IncompatibleFS),
    (r"driver not supported|prerequisites for driver", NotSupported),
    (r"invalid (layer )?(id|name|argument .*key)|identifier .* must match", InvalidLayerId),
    (r"archive/tar|processing tar|unexpected EOF|invalid tar", BadArchive),
)


def refusal(text: str) -> DriverError:
    """Return the error that `text`, a program's own words, stands for."""
    found = next((kind for words, kind in _CLASSES if re.search(words, text, re.I)), DriverError)
    return found(text)
