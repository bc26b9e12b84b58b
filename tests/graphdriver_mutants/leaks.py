"""Mutants that leave things behind."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

from graphdriver_mutants.registry import Mutant, mutant

__all__: list[str] = []


@mutant("CLN-004", bug="coreos/bugs #2127: mounts outside the data root that nobody ends")
class MountedTwiceOver(Mutant):
    """A view is mounted a second time, beside the home, and stays there."""

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get, and a bind mount."""
        view = super().get(id, mount_label)
        if os.path.ismount(view):
            elsewhere = self.home.with_name(f"view-of-{id}")
            elsewhere.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", view, elsewhere], check=True)
        return view


@mutant("CLN-005", bug="a differ that does not close what it reads")
class DescriptorsLeaked(Mutant):
    """get_metadata leaves a directory open."""

    def get_metadata(self, id: str) -> dict[str, str]:
        """Driver.get_metadata, and a descriptor."""
        found = super().get_metadata(id)
        os.open(self.home, os.O_PATH)
        return found


@mutant("CLN-007", bug="docker load: what was unpacked for a moment stayed in tmp")
class ArchivesKept(Mutant):
    """An archive is spooled to a temporary file, and stays there."""

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff, by way of a file."""
        with super().diff(id, parent) as stream, tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(stream.read())
        return open(file.name, "rb")
