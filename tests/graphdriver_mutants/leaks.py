"""Mutants that leak mounts, descriptors or files."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("CLN-004", bug="coreos/bugs #2127: mounts outside the data root that are never unmounted")
class MountedTwiceOver(Mutant):
    """The view is mounted a second time beside the home and never unmounted there."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, and a bind mount beside the home."""
        view = super().get(id, mount_label)
        if os.path.ismount(view):
            elsewhere = self.home.with_name(f"view-of-{id}")
            elsewhere.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", view, elsewhere], check=True)
        return view


@mutant("CLN-005", bug="a differ that does not close the files it reads")
class DescriptorsLeaked(Mutant):
    """get_metadata leaks a descriptor of a directory."""

    def get_metadata(self, id: str) -> dict[str, str]:
        """Driver.get_metadata, and a leaked descriptor."""
        found = super().get_metadata(id)
        os.open(self.home, os.O_PATH)
        return found


@mutant("CLN-007", bug="docker load: temporary files of archives stay in tmp")
class ArchivesKept(Mutant):
    """Archives are spooled to a temporary file that is never deleted."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, spooled to a file."""
        with super().diff(id, parent) as stream, tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(stream.read())
        return open(file.name, "rb")
