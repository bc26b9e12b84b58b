"""Every error that a driver raises deliberately; errors of the kernel stay `OSError` with errno.

The class hierarchy is one level deep so that an adapter can map any driver's errors to it. Each
message states the operation, the layer and the remedy; `DriverError` keeps the remedy separate
(`hint`) so that a report can show it on its own line.
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
    """A driver refused, or could not perform, the operation of a verb.

    `message` states the operation and the layer; `hint` states the remedy. `str()` contains both.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["DriverError"], tuple[str, str]]:
        """Support pickling between test processes, which calls the class with `args`."""
        return type(self), (self.message, self.hint)


class NotSupported(DriverError):
    """The host cannot run this driver: kernel too old, no overlayfs, mounts refused."""


class IncompatibleFS(DriverError):
    """The file system of the home is not supported by this driver."""


class PrerequisitesNotMet(DriverError):
    """The driver supports this host, but an argument (an option, the home) is not usable."""


class InvalidLayerId(DriverError):
    """The id cannot be used as a directory name; nothing was changed."""


class LayerNotFound(DriverError):
    """No layer has that id."""


class LayerExists(DriverError):
    """A layer with that id already exists; it was not changed."""


class LayerInUse(DriverError):
    """The layer, or a descendant, is held or otherwise in use; or it has children."""


class MaxDepthExceeded(DriverError):
    """The chain would have more lower layers than the driver supports."""


class MountOptionsTooLong(DriverError):
    """The mount options exceed the one page that mount(2) copies."""


class QuotaNotSupported(DriverError):
    """A size was requested on a file system without project quota."""


class BadArchive(DriverError):
    """The stream is not a layer archive, or has a path that leaves the layer."""


class UnmappedId(DriverError):
    """A uid or gid has no mapping in the driver's id maps."""
