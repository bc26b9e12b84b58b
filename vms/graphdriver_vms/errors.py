"""What can go wrong with a machine, each with what to do next."""

__all__ = ["CannotBuild", "MachineFailed", "MatrixError", "NotBooted"]


class MatrixError(Exception):
    """The matrix cannot go on; `remedy` says what to do."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(f"{text}; {remedy}" if remedy else text)


class CannotBuild(MatrixError):
    """A box or a kernel cannot be made."""


class MachineFailed(MatrixError):
    """A machine did not come up, hung or went away."""


class NotBooted(MachineFailed):
    """A kernel's user space never ran."""
