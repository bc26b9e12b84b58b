"""The snapshotters of a running containerd: `containerd+unix://SOCKET?snapshotter=NAME`.

Needs grpcio and protobuf: the extra `containerd`.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from graphdriver.contract import Capability, Driver, IDMap
from graphdriver.errors import NotSupported, PrerequisitesNotMet
from graphdriver_conformance.drivers.resolve import BadSpec, DriverProcesses, DriverSource

__all__ = ["source"]

# The differ compares size and time of two mounts, for every snapshotter; its archives do not
# contain user.* xattrs. The files of a snapshotter are below its own root.
_CLAIMS = frozenset(
    {
        Capability.MOUNTING,
        Capability.LONG_NAMES,
        Capability.RESTARTABLE,
        Capability.FLATTENED_DIFF,
        Capability.HARDLINK_IDENTITY,
        Capability.EXACT_DIFFS,
    }
)


@dataclass(frozen=True)
class _Factory:
    """Creates drivers on a snapshotter; the first one is used to probe their claims."""

    socket: Path
    snapshotter: str
    _probed: list[frozenset[Capability]] = field(default_factory=list)

    def __call__(
        self,
        home: Path,
        options: Sequence[str] = (),
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> Driver:
        # Loaded late: the import of grpc takes a third of a second.
        from graphdriver_conformance.drivers.containerd.driver import ContainerdDriver

        if uid_maps or gid_maps:
            raise NotSupported(f"{self.snapshotter} with id maps", "homes have none in containerd")
        if options:
            raise PrerequisitesNotMet(
                f"unknown option {options[0]!r}", "containerd reads its own configuration only"
            )
        if not self._probed:
            self._probed.append(_CLAIMS | self._probe())
        return ContainerdDriver(self.socket, self.snapshotter, home, self._probed[0])

    def _probe(self) -> frozenset[Capability]:
        """Probe the differences between snapshotters, on a home that is discarded afterwards."""
        from graphdriver_conformance.drivers.containerd.driver import ContainerdDriver

        with tempfile.TemporaryDirectory(prefix="graphdriver-probe-") as scratch:
            driver = ContainerdDriver(self.socket, self.snapshotter, Path(scratch), _CLAIMS)
            try:
                return driver.probe()
            finally:
                driver.forget()


class _ContainerdProcesses(DriverProcesses):
    """Deletes the data of drivers in containerd, which is not below their homes."""

    def release(self, driver: Driver) -> None:
        """Remove the home's snapshots, content, lease and namespace."""
        driver.forget()  # type: ignore[attr-defined]

    def end(self, driver: Driver, *, killed: bool) -> None:
        """Close the connection; containerd keeps running, because others may use it."""
        driver.disconnect()  # type: ignore[attr-defined]

    def process_of(self, driver: Driver) -> int:
        """Return 0: the process is containerd, of which only the socket is known."""
        return 0


def source(spec: str) -> DriverSource:
    """Return the snapshotter that `spec` names. Raises BadSpec."""
    parts = urlsplit(spec)
    names = parse_qs(parts.query).get("snapshotter", [])
    if parts.netloc or not parts.path.startswith("/") or len(names) != 1:
        raise BadSpec(f"{spec}: it must be containerd+unix:///PATH?snapshotter=NAME")
    for module, package in (("grpc", "grpcio"), ("google.protobuf", "protobuf")):
        if not _has(module):
            raise BadSpec(f"{spec}: needs {package}: pip install {package}")
    factory = _Factory(Path(unquote(parts.path)), names[0])
    # Snapshotters may mount lowers themselves, which are visible only in the daemon's mount
    # namespace.
    return DriverSource(
        spec,
        factory,
        in_process=False,
        offers=frozenset(),
        mount_here=False,
        processes=_ContainerdProcesses(),
    )


def _has(module: str) -> bool:
    """Whether a module can be imported; False also if its package is missing."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
