"""The base classes of mutants, and their registry."""

import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeVar

from graphdriver.contract import Change, Driver, IDMap

__all__ = ["MUTANTS", "Broken", "Mutant", "mutant", "umask_of_process"]

_Broken = TypeVar("_Broken", bound="Broken")
MUTANTS: dict[str, type["Broken"]] = {}


class Broken:
    """`breaks` names the requirements that have to notice, `bug` where the bug was real.

    `needs` is what a machine must have to show it, as in a requirement's needs, or a device by its
    path; "" for nothing.
    """

    breaks: ClassVar[tuple[str, ...]] = ()
    bug: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    deadline: ClassVar[float] = 60
    """Seconds that a verb, or a process, may take before it counts as hanging."""

    @classmethod
    def spec(cls) -> str:
        """Return the SPEC that runs it."""
        return f"graphdriver_mutants:{cls.__name__}"


class Mutant(Broken):
    """Delegates every verb to a correct driver; subclasses break one thing."""

    wrapped_name: ClassVar[str] = "overlay2"

    def __init__(
        self,
        home: str | os.PathLike[str],
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> None:
        factory = importlib.metadata.entry_points(group="graphdriver.drivers")[
            self.wrapped_name
        ].load()
        self.home = Path(home)
        self.wrapped: Driver = factory(home, options, uid_maps, gid_maps)
        self.capabilities = getattr(self.wrapped, "capabilities", None)
        self.layer_limit = getattr(self.wrapped, "layer_limit", 0)

    def __str__(self) -> str:
        """Return the wrapped driver's name."""
        return str(self.wrapped)

    def make(self, id: str, parent: str, storage_opt: Mapping[str, str] | None) -> None:
        """Create a layer for create and create_read_write, by a call of `wrapped`."""
        self.wrapped.create_read_write(id, parent, "", storage_opt)

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Driver.create."""
        self.make(id, parent, storage_opt)

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Driver.create_read_write."""
        self.make(id, parent, storage_opt)

    def remove(self, id: str) -> None:
        """Driver.remove."""
        self.wrapped.remove(id)

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get."""
        return self.wrapped.get(id, mount_label)

    def put(self, id: str) -> None:
        """Driver.put."""
        self.wrapped.put(id)

    def exists(self, id: str) -> bool:
        """Driver.exists."""
        return self.wrapped.exists(id)

    def status(self) -> list[tuple[str, str]]:
        """Driver.status."""
        return self.wrapped.status()

    def get_metadata(self, id: str) -> dict[str, str]:
        """Driver.get_metadata."""
        return self.wrapped.get_metadata(id)

    def cleanup(self) -> None:
        """Driver.cleanup."""
        self.wrapped.cleanup()

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff."""
        return self.wrapped.diff(id, parent)

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Driver.changes."""
        return self.wrapped.changes(id, parent)

    def apply_diff(self, id: str, parent: str, diff: BinaryIO) -> int:
        """Driver.apply_diff."""
        return self.wrapped.apply_diff(id, parent, diff)

    def diff_size(self, id: str, parent: str = "") -> int:
        """Driver.diff_size."""
        return self.wrapped.diff_size(id, parent)


def mutant(*breaks: str, bug: str, needs: str = "") -> Callable[[type[_Broken]], type[_Broken]]:
    """Register a mutant: the requirements it breaks, and where its bug was real."""

    def register(broken: type[_Broken]) -> type[_Broken]:
        if broken.__name__ in MUTANTS:
            raise ValueError(f"two mutants are called {broken.__name__}; name one after its bug")
        broken.breaks, broken.bug, broken.needs = breaks, bug, needs
        MUTANTS[broken.__name__] = broken
        return broken

    return register


def umask_of_process() -> int:
    """Return the umask without setting it: the suite, in the same process, would get another."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("\nUmask:")[2].split(maxsplit=1)[0], 8)
