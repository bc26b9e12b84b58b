"""The drivers: their SPECs, and what has to be there before they can be asked."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from graphdriver_conformance.host.environment import umount_below

__all__ = ["TARGETS", "Target", "ready"]

_CONTAINERD = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/containerd.sock"
[ttrpc]
  address = "{0}/ttrpc.sock"
[plugins."io.containerd.snapshotter.v1.btrfs"]
  root_path = "{0}/btrfs"
"""
_DOCKER = "golang-github-docker-docker-dev"
_FUSE = "--graphdriver-option=overlay.mount_program=/usr/bin/fuse-overlayfs"


@dataclass(frozen=True, slots=True)
class Target:
    """A driver; its version is that of `packages`.

    `spec` has {socket} where a daemon's goes, and {gdserve} for the program that serves Docker's
    own drivers.
    """

    name: str
    title: str
    spec: str
    packages: tuple[str, ...]
    options: tuple[str, ...] = ()
    on_btrfs: bool = False

    @property
    def needs_containerd(self) -> bool:
        """Whether a containerd has to run."""
        return "{socket}" in self.spec

    @property
    def needs_gdserve(self) -> bool:
        """Whether gdserve has to be built."""
        return "{gdserve}" in self.spec

    def version(self) -> str:
        """Return the versions of its packages, as dpkg has them; ours is in none."""
        found = ", ".join(f"{package} {_version(package)}" for package in self.packages)
        return found or "this repository's"


def _storage(driver: str, **more: object) -> Target:
    return Target(
        f"containers-storage-{driver}",
        f"containers-storage {driver}",
        f"containers-storage:{driver}",
        ("containers-storage",),
        **more,  # type: ignore[arg-type]
    )


def _snapshotter(name: str) -> Target:
    return Target(
        f"containerd-{name}",
        f"containerd {name}",
        "containerd+unix://{socket}?snapshotter=" + name,
        ("containerd",),
    )


def _docker(driver: str, **more: object) -> Target:
    packages = more.pop("packages", ())
    return Target(
        f"docker-{driver}",
        f"Docker {driver}",
        "plugin+exec:{gdserve} " + driver,
        (_DOCKER, *packages),  # type: ignore[misc]
        **more,  # type: ignore[arg-type]
    )


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "graphdriver-overlay2",
            "ours, through its socket",
            "plugin+exec:graphdriver serve overlay2",
            (),
        ),
        _docker("overlay2"),
        _docker("vfs"),
        _docker("btrfs", on_btrfs=True),
        _docker("fuse-overlayfs", packages=("fuse-overlayfs",)),
        _storage("overlay"),
        _storage("vfs"),
        _storage("btrfs", on_btrfs=True),
        Target(
            "containers-storage-fuse",
            "containers-storage overlay over fuse-overlayfs",
            "containers-storage:overlay",
            ("containers-storage", "fuse-overlayfs"),
            (_FUSE,),
        ),
        _snapshotter("overlayfs"),
        _snapshotter("native"),
        _snapshotter("btrfs"),
    )
}


@contextmanager
def ready(target: Target, place: Path) -> Iterator[list[str]]:
    """Yield what `graphdriver check` is to be given for the target, while it is there."""
    with ExitStack() as stack:
        options = list(target.options)
        homes = place / "homes"
        homes.mkdir()
        if target.on_btrfs:
            stack.enter_context(_btrfs(place / "homes.img", homes))
        spec = target.spec
        if target.needs_gdserve:
            spec = spec.format(gdserve=_gdserve(place / "gdserve"))
        if target.needs_containerd:
            daemon = place / "containerd"
            (daemon / "btrfs").mkdir(parents=True)
            if target.name.endswith("btrfs"):
                stack.enter_context(_btrfs(place / "snapshots.img", daemon / "btrfs"))
            spec = spec.format(socket=stack.enter_context(_containerd(daemon)))
        yield [spec, f"--graphdriver-home={homes}", *options]


def _gdserve(program: Path) -> Path:
    """Build the program that serves Docker's drivers; Go keeps what it compiled."""
    build = Path(__file__).parents[1] / "gdserve" / "build"
    subprocess.run([build, program], check=True)
    return program


@contextmanager
def _btrfs(image: Path, point: Path) -> Iterator[None]:
    with image.open("wb") as opened:
        opened.truncate(4 << 30)
    subprocess.run(["mkfs.btrfs", "-q", image], capture_output=True, check=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", point], check=True)
        image.unlink()


@contextmanager
def _containerd(place: Path) -> Iterator[Path]:
    """Run a containerd of our own below `place`, and yield its socket."""
    (place / "config.toml").write_text(_CONTAINERD.format(place))
    socket = place / "containerd.sock"
    command = ["containerd", "-c", str(place / "config.toml")]
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        until = time.monotonic() + 30
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"containerd does not start: {(place / 'log').read_text()}")
            time.sleep(0.05)
        try:
            yield socket
        finally:
            process.terminate()
            process.wait()
            umount_below(place / "root")


def _version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f=${Version}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout or "?"


def programs_missing() -> list[str]:
    """Return which programs the targets need and are not installed."""
    needed = ("containers-storage", "containerd", "fuse-overlayfs", "mkfs.btrfs")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in needed if not shutil.which(name, path=path)]
