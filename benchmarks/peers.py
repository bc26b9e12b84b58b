"""Drive the containers-storage program, the independent relative of Docker's overlay2."""

import json
import shutil
import subprocess
from pathlib import Path

__all__ = ["ContainersStorage"]


class ContainersStorage:
    """Its overlay driver, on a store of its own; each verb is one process of about 6 ms."""

    def __init__(self, root: Path) -> None:
        self._command = (
            "containers-storage",
            *("-g", str(root / "graph")),
            *("-R", str(root / "run")),
            *("-s", "overlay"),
        )

    @classmethod
    def if_installed(cls, root: Path) -> "ContainersStorage | None":
        """Return it, or None where the program is missing."""
        return cls(root) if shutil.which("containers-storage") else None

    def create(self, layer: str, parent: str = "") -> None:
        """Make an empty layer."""
        self._run("create-layer", "-i", layer, *([parent] if parent else []))

    def import_layer(self, layer: str, archive: Path) -> None:
        """Make a base layer of an archive."""
        self._run("import-layer", "-i", layer, "-f", str(archive))

    def apply(self, layer: str, archive: Path) -> None:
        """Unpack an archive into a layer."""
        self._run("applydiff", "-f", str(archive), layer)

    def diff(self, layer: str) -> None:
        """Write a layer's uncompressed archive to nowhere."""
        self._run("diff", "-u", "-f", "/dev/null", layer)

    def changes(self, layer: str) -> None:
        """List what differs from the parent."""
        self._run("changes", "-j", layer)

    def mount(self, layer: str) -> Path:
        """Mount a layer and say where."""
        return Path(json.loads(self._run("mount", "-j", layer))[0]["mountpoint"])

    def unmount(self, layer: str) -> None:
        """Undo mount."""
        self._run("unmount", layer)

    def delete(self, layer: str) -> None:
        """Delete a layer."""
        self._run("delete-layer", layer)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"containers-storage {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout
