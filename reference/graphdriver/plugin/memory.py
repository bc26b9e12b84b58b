"""The state of a plugin that a restart needs: the last Init.

Docker sends Init when the daemon starts. A plugin that is updated or killed while containers run
gets their next Get and Put without one.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["Memory"]


class Memory:
    """The file `path`, which contains the body of the last Init of the driver `name`."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name

    def keep(self, body: dict[str, Any]) -> None:
        """Write a body, atomically and for root only. Raises OSError."""
        beside = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"Driver": self._name, "Init": body}, file)
        beside.replace(self._path)

    def recall(self) -> dict[str, Any] | None:
        """Return the body; None if there is none, or not of this driver, or its home does not
        exist.
        """
        try:
            kept = json.loads(self._path.read_text())
            body = kept["Init"]
            usable = kept["Driver"] == self._name and Path(body["Home"]).is_dir()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(body) if usable else None
