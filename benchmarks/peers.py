"""The other candidates: Docker's overlay2 and containerd's archive package, each in a program of
its own that times its verbs inside, and the program containers-storage.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Containerd", "ContainersStorage", "Docker", "build"]

_SOURCES = Path("/usr/share/gocode/src/github.com")
_HERE = Path(__file__).parent
_BUILD = _HERE.parent / "tests" / "gdserve" / "build"


def build(name: str, package: str, directory: Path) -> Path | None:
    """Build a program of go/ with Debian's source of `package`; None if that is not installed."""
    if not (_SOURCES / package).is_dir() or not shutil.which("go"):
        return None
    out = directory / name
    done = subprocess.run(
        [_BUILD, out, "", _HERE / "go" / f"{name}.go"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{name} cannot be built and takes no part: {done.stderr.strip()[-300:]}")
        return None
    return out


class _Program:
    """A program that replies to a line with the nanoseconds of a verb, and its result."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, *words: str | Path) -> tuple[float, str]:
        """Call a verb; return its seconds and its result."""
        assert self._process.stdin
        assert self._process.stdout
        print(*words, sep="\t", file=self._process.stdin, flush=True)
        first, _, rest = self._process.stdout.readline().strip().partition(" ")
        if not first.isdigit():
            raise RuntimeError(f"{' '.join(map(str, words))}: {rest or 'the program has ended'}")
        return int(first) / 1e9, rest

    def time(self, *words: str | Path) -> float:
        """Return the seconds of a verb."""
        return self.call(*words)[0]

    def close(self) -> None:
        """End the program."""
        self._process.communicate()


class Docker(_Program):
    """Docker's overlay2 on a separate home."""

    def __init__(self, program: Path, home: Path) -> None:
        super().__init__(program, home)

    @staticmethod
    def syncs() -> bool:
        """Return whether its create syncs to the disk; 20.10 does not."""
        source = _SOURCES / "docker/docker/daemon/graphdriver/overlay2/overlay.go"
        return "tomicW" in source.read_text()  # AtomicWriteFile, later atomicwriter.WriteFile

    @classmethod
    @contextmanager
    def running(cls, directory: Path, home: Path) -> Iterator["Docker | None"]:
        """Yield the driver, or None if it cannot be built."""
        program = build("dockerbench", "docker/docker/daemon/graphdriver", directory)
        if not program:
            yield None
            return
        peer = cls(program, home)
        try:
            yield peer
        finally:
            peer.close()


class Containerd(_Program):
    """containerd's archive package, which reads and writes directories."""

    @classmethod
    @contextmanager
    def running(cls, directory: Path) -> Iterator["Containerd | None"]:
        """Yield the package, or None if it cannot be built."""
        program = build("containerdbench", "containerd/containerd/archive", directory)
        if not program:
            yield None
            return
        peer = cls(program)
        try:
            yield peer
        finally:
            peer.close()


class ContainersStorage:
    """The overlay driver of containers-storage, on a separate store; a verb is a 6 ms process."""

    def __init__(self, root: Path) -> None:
        self._command = (
            "containers-storage",
            *("-g", str(root / "graph")),
            *("-R", str(root / "run")),
            *("-s", "overlay"),
        )

    @classmethod
    def if_installed(cls, root: Path) -> "ContainersStorage | None":
        """Return the driver, or None if the program is not installed."""
        return cls(root) if shutil.which("containers-storage") else None

    def create(self, layer: str, parent: str = "") -> None:
        """Create an empty layer."""
        self._run("create-layer", "-i", layer, *([parent] if parent else []))

    def apply(self, layer: str, archive: Path) -> None:
        """Unpack an archive into a layer."""
        self._run("applydiff", "-f", os.fspath(archive), layer)

    def diff(self, layer: str) -> None:
        """Read a layer's uncompressed archive and discard it."""
        self._run("diff", "-u", "-f", "/dev/null", layer)

    def changes(self, layer: str) -> None:
        """List the changes to the parent."""
        self._run("changes", "-j", layer)

    def mount(self, layer: str) -> Path:
        """Mount a layer and return the mount point."""
        return Path(json.loads(self._run("mount", "-j", layer))[0]["mountpoint"])

    def unmount(self, layer: str) -> None:
        """Unmount a layer."""
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
