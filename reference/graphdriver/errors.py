"""Every error a driver raises on purpose; what the kernel refuses stays `OSError` with its errno.

The tree is one level deep so that an adapter can map any driver's errors onto it. Each message
says what was tried, on which layer, and what to do next; `DriverError` keeps the advice apart
(`hint`) so that a report can set it on a line of its own.
"""

__all__ = [
    "BadArchive",
    "DriverError",
    "IncompatibleFS",
    "InvalidLayerId",
    "LayerExists",
    "LayerInUse",
    "LayerNotFound",
    "MaxDepthExceeded",
    "MountOptionsTooLong",
    "NotSupported",
    "PrerequisitesNotMet",
    "QuotaNotSupported",
    "UnmappedId",
]


class DriverError(Exception):
    """A driver refused or could not do what a verb asked.

    `message` says what was tried and on what; `hint` says what to do next. `str()` gives both.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["DriverError"], tuple[str, str]]:
        """Survive pickling between test processes, which calls the class with `args`."""
        return type(self), (self.message, self.hint)


class NotSupported(DriverError):
    """The host cannot run this driver: kernel too old, no overlayfs, mounts refused."""


class IncompatibleFS(DriverError):
    """The file system below the home cannot carry this driver."""


class PrerequisitesNotMet(DriverError):
    """The driver could run here, but something it was given (an option, the home) is not usable."""


class InvalidLayerId(DriverError):
    """The id is not one that may become a directory name; nothing was touched."""


class LayerNotFound(DriverError):
    """No layer has that id."""


class LayerExists(DriverError):
    """A layer with that id exists already; it was left as it is."""


class LayerInUse(DriverError):
    """The layer, or one that stands on it, is held or otherwise in use; or it has children."""


class MaxDepthExceeded(DriverError):
    """The chain would have more lower layers than the driver allows."""


class MountOptionsTooLong(DriverError):
    """The mount data does not fit the one page that mount(2) copies."""


class QuotaNotSupported(DriverError):
    """A size was asked for where the file system keeps no project quota."""


class BadArchive(DriverError):
    """The stream is not a layer archive, or one that tries to leave its layer."""


class UnmappedId(DriverError):
    """A uid or gid lies outside the maps the driver was given."""
