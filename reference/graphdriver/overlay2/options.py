"""Options of overlay2 (`--storage-opt`), for the driver and for one layer."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphdriver.errors import PrerequisitesNotMet

__all__ = ["Options", "parse_options", "parse_size", "parse_storage_opt"]

# Go's strconv.ParseBool
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}

# docker/go-units, RAMInBytes: binary multiples for every suffix.
_SIZE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([kmgtp]?)(?:ib|b)?", re.IGNORECASE)
_MULTIPLES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


# Features that can be enabled for every mount. Kernels differ in their defaults, and the driver has
# to be correct with each (Documentation/filesystems/overlayfs.rst).
_MOUNT_OPTIONS = {
    "redirect_dir": {"on", "off", "follow", "nofollow"},
    "metacopy": {"on", "off"},
    "index": {"on", "off"},
    "xino": {"on", "off", "auto"},
}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one driver.

    `size` in bytes, 0 for no default; `mountopt` for every mount; `sync` makes apply_diff durable.
    """

    override_kernel_check: bool = False
    size: int = 0
    mountopt: str = ""
    sync: bool = False


def parse_options(options: Iterable[str]) -> Options:
    """Parse `key=value` strings; keys in any case. Raises PrerequisitesNotMet, naming the key."""
    override, size, mountopt, sync = False, 0, "", False
    for option in options:
        key, equals, value = str(option).partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise PrerequisitesNotMet(
                f"overlay2: the option {option!r} is malformed", "write it as key=value"
            )
        if key == "overlay2.override_kernel_check":
            override = _parse_bool(key, value.strip())
        elif key == "overlay2.size":
            size = parse_size(key, value)
        elif key == "overlay2.sync":
            sync = _parse_bool(key, value.strip())
        elif key == "overlay2.mountopt":
            mountopt = _parse_mountopt(key, value.strip())
        else:
            raise PrerequisitesNotMet(
                f"overlay2: unknown option {key}",
                "there are overlay2.override_kernel_check, overlay2.size, overlay2.sync and "
                "overlay2.mountopt",
            )
    return Options(override, size, mountopt, sync)


def parse_storage_opt(storage_opt: Mapping[str, str] | None) -> int:
    """Return the maximum size in bytes of a layer, 0 for none.

    Raises PrerequisitesNotMet for another key or an invalid size.
    """
    size = 0
    for key, value in (storage_opt or {}).items():
        if key.lower() != "size":
            raise PrerequisitesNotMet(f"overlay2: unknown storage option {key}", "there is size")
        size = parse_size(key, value)
    return size


def parse_size(key: str, text: str) -> int:
    """Parse `10G`, `1.5 GiB`, `512m`, `1024` to bytes. Raises PrerequisitesNotMet."""
    match = _SIZE.fullmatch(str(text).strip())
    size = 0
    if match:
        # Integers only: above 2**53 a float cannot represent every number of bytes.
        whole, _, part = match[1].partition(".")
        multiple = 1024 ** _MULTIPLES[match[2].lower()]
        size = int(whole + part) * multiple // 10 ** len(part)
    if not 0 < size < 1 << 63:
        raise PrerequisitesNotMet(
            f"overlay2: {key}={text!s:.80} is not a size", "write it as 10G or 512m"
        )
    return size


def _parse_mountopt(key: str, value: str) -> str:
    for option in value.split(","):
        name, _, setting = option.partition("=")
        if setting not in _MOUNT_OPTIONS.get(name, ()):
            known = "; ".join(f"{k}={'|'.join(sorted(v))}" for k, v in _MOUNT_OPTIONS.items())
            raise PrerequisitesNotMet(
                f"overlay2: {key} cannot have {option!r}", f"it takes, comma-separated, {known}"
            )
    return value


def _parse_bool(key: str, value: str) -> bool:
    if value not in _TRUE | _FALSE:
        raise PrerequisitesNotMet(
            f"overlay2: {key}={value} is neither true nor false", "write true or false"
        )
    return value in _TRUE
