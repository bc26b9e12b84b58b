"""Mutants of Init and restart."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from graphdriver.contract import IDMap
from graphdriver.errors import PrerequisitesNotMet
from graphdriver_conformance.mutants.registry import Mutant, mutant

__all__: list[str] = []

_Home = str | os.PathLike[str]
_Maps = Sequence[IDMap]


@mutant("INI-010", bug="CVE-2021-41091")
class HomeIsOpen(Mutant):
    """Everybody may pass the home."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        super().__init__(home, options, uid_maps, gid_maps)
        os.chmod(home, 0o755)


@mutant("INI-006", bug="a driver that looks for the options it knows")
class UnknownOptionsIgnored(Mutant):
    """Options that nobody knows are dropped."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        known = [one for one in options if "=" not in one or one.startswith("=")]
        super().__init__(home, known, uid_maps, gid_maps)


@mutant("INI-007", bug="a driver that looks for the options it knows")
class MalformedOptionsIgnored(Mutant):
    """Options without a value are dropped."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        known = [one for one in options if "=" in one and not one.startswith("=")]
        super().__init__(home, known, uid_maps, gid_maps)


@mutant("INI-009", bug="moby: check-overlayfs-support directories left in the home")
class ProbesLeft(Mutant):
    """Each Init leaves its probe directory."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        super().__init__(home, options, uid_maps, gid_maps)
        (Path(home) / f"check-overlayfs-support{len(os.listdir(home))}").mkdir()


@mutant("INI-008", "LIF-023", bug="a driver that keeps its layers in memory")
class LayersForgotten(Mutant):
    """A restart begins with an empty home."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        if os.path.isdir(home):
            shutil.rmtree(home)
        super().__init__(home, options, uid_maps, gid_maps)


@mutant("INI-011", bug="a home made before its options are read")
class FailedInitMakesHome(Mutant):
    """An Init that fails has made the home already."""

    def __init__(
        self, home: _Home, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> None:
        os.makedirs(home, exist_ok=True)
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except PrerequisitesNotMet:
            (Path(home) / "failed").touch()
            raise
