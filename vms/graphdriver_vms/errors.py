"""Errors of machines, each with a remedy."""

__all__ = ["CannotBuild", "MachineFailed", "MatrixError", "NotBooted"]


class MatrixError(Exception):
    """The matrix cannot continue; `remedy` is the remedy."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(f"{text}; {remedy}" if remedy else text)


class CannotBuild(MatrixError):
    """A box or a kernel cannot be built."""


class MachineFailed(MatrixError):
    """A machine did not boot, hung or disappeared."""


class NotBooted(MachineFailed):
    """The user space of a kernel never ran."""
