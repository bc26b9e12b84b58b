"""The drivers, each in the versions of several Debian suites, and the daemons that they need."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from graphdriver_conformance.host.environment import umount_below

from .suites import SUITES, Suite, short

__all__ = ["TARGETS", "Ready", "Target", "programs_missing", "ready"]

_CONTAINERD = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/containerd.sock"
[ttrpc]
  address = "{0}/ttrpc.sock"
"""
# Configuration of one snapshotter; containerd 2 fails to start if that of another is incomplete.
_SECTIONS = {
    "btrfs": """
[plugins."io.containerd.snapshotter.v1.btrfs"]
  root_path = "{0}/btrfs"
""",
    "blockfile": """
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "{0}/blockfile"
  scratch_file = "{0}/scratch"
  fs_type = "ext4"
  mount_options = []
  recreate_scratch = true
""",
}
_PROXY = """
[proxy_plugins.{1}]
  type = "snapshot"
  address = "{0}/{1}.sock"
"""
_PROXIES: dict[str, tuple[str, ...]] = {
    "soci": ("soci-snapshotter-grpc", "-address", "{0}/soci.sock", "-root", "{0}/soci"),
    # nydusd is not used without lazily fetched images; the snapshotter requires the program.
    "nydus": (
        *("containerd-nydus-grpc", "--address", "{0}/nydus.sock", "--root", "{0}/nydus"),
        *("--daemon-mode", "none", "--nydusd", "/bin/true", "--nydusd-config", "{0}/nydusd.json"),
    ),
}
_NYDUSD = '{"device": {"backend": {"type": "registry", "config": {"scheme": "https"}}}}'
_DOCKER = "golang-github-docker-docker-dev"
_BTRFS = "btrfs"
_BLOCKS = 64 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A driver in the version of a suite; its version is that of `packages`.

    In `spec`, {socket} stands for the socket of a daemon, {gdserve} for the program that serves
    Docker's own drivers, and {fuse} for fuse-overlayfs.
    """

    driver: str
    title: str
    spec: str
    packages: tuple[str, ...]
    programs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    on_btrfs: bool = False
    suite: str = SUITES[0]

    @property
    def name(self) -> str:
        """Return the name on the command line; the oldest suite has no suffix."""
        return self.driver if self.suite == SUITES[0] else f"{self.driver}@{self.suite}"

    @property
    def snapshotter(self) -> str:
        """Return the snapshotter of containerd under test, an empty name for other drivers."""
        return self.spec.partition("snapshotter=")[2]

    def version(self) -> str:
        """Return the versions of its packages; the reference driver is in no package."""
        suite = Suite(self.suite)
        found = ", ".join(f"{package} {suite.version(package)}" for package in self.packages)
        return found or "this repository's"

    def release(self) -> str:
        """Return the version as in the column header."""
        return short(Suite(self.suite).version(self.packages[0])) if self.packages else "here"


def _storage(driver: str, title: str = "", **more: object) -> Target:
    return Target(
        f"containers-storage-{driver}",
        title or f"containers-storage {driver}",
        f"containers-storage:{'overlay' if driver == 'fuse' else driver}",
        **{
            "packages": ("containers-storage",),
            "programs": ("containers-storage",),
            **more,
        },  # type: ignore[arg-type]
    )


def _snapshotter(name: str, package: str = "", *programs: str) -> Target:
    return Target(
        f"containerd-{name}",
        f"{package} through containerd" if package else f"containerd {name}",
        "containerd+unix://{socket}?snapshotter=" + name,
        (package, "containerd") if package else ("containerd",),
        ("containerd", *programs),
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


_OURS = Target(
    "graphdriver-overlay2", "ours, through its socket", "plugin+exec:graphdriver serve overlay2", ()
)
_OF_ALL_SUITES = (
    _docker("overlay2"),
    _docker("vfs"),
    _docker("btrfs", on_btrfs=True),
    _docker("fuse-overlayfs", packages=("fuse-overlayfs",), programs=("fuse-overlayfs",)),
    _storage("overlay"),
    _storage("vfs"),
    _storage("btrfs", on_btrfs=True),
    _storage(
        "fuse",
        "containers-storage overlay over fuse-overlayfs",
        packages=("containers-storage", "fuse-overlayfs"),
        programs=("containers-storage", "fuse-overlayfs"),
        options=("--graphdriver-option=overlay.mount_program={fuse}",),
    ),
    _snapshotter("overlayfs"),
    _snapshotter("native"),
    _snapshotter("btrfs"),
)
_OF_SOME = {
    "trixie": (_snapshotter("blockfile"),),
    "sid": (
        _snapshotter("blockfile"),
        _snapshotter("erofs", "", "mkfs.erofs"),
        _snapshotter("soci", "soci-snapshotter", "soci-snapshotter-grpc"),
        _snapshotter("nydus", "nydus-snapshotter", "containerd-nydus-grpc"),
    ),
}


def _targets() -> Iterator[Target]:
    yield _OURS
    others = dict.fromkeys(one.driver for some in _OF_SOME.values() for one in some)
    for target in _OF_ALL_SUITES:
        yield from (replace(target, suite=suite) for suite in SUITES)
    for driver in others:
        for suite, some in _OF_SOME.items():
            yield from (replace(one, suite=suite) for one in some if one.driver == driver)


TARGETS: dict[str, Target] = {target.name: target for target in _targets()}


@dataclass(frozen=True, slots=True)
class Ready:
    """A prepared target: the arguments of `graphdriver check`, and the environment."""

    arguments: list[str]
    environment: dict[str, str]


@contextmanager
def ready(target: Target, place: Path) -> Iterator[Ready]:
    """Yield the target while all processes that it needs are running."""
    with ExitStack() as stack:
        programs = Suite(target.suite).provide(target.programs, target.packages)
        environment = dict(os.environ)
        if programs:
            environment["PATH"] = f"{programs}:{environment['PATH']}"
        homes = place / "homes"
        homes.mkdir()
        if target.on_btrfs:
            stack.enter_context(_btrfs(place / "homes.img", homes))
        words = {"fuse": shutil.which("fuse-overlayfs", path=environment["PATH"]) or "?"}
        if "{gdserve}" in target.spec:
            words["gdserve"] = str(Suite(target.suite).docker())
        if "{socket}" in target.spec:
            daemon = stack.enter_context(_containerd(target, place / "containerd", environment))
            words["socket"] = str(daemon)
        options = [option.format(**words) for option in target.options]
        arguments = [target.spec.format(**words), f"--graphdriver-home={homes}", *options]
        yield Ready(arguments, environment)


@contextmanager
def _btrfs(image: Path, point: Path) -> Iterator[None]:
    with image.open("wb") as opened:
        opened.truncate(4 << 30)
    subprocess.run(["mkfs.btrfs", "-q", image], capture_output=True, check=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield
    finally:
        if os.path.ismount(point):  # what is left of containerd may be unmounted already
            subprocess.run(["umount", "--recursive", point], check=True)
        image.unlink()


@contextmanager
def _containerd(target: Target, place: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Run a private containerd below `place`, after the snapshotter's own daemon."""
    for directory in ("btrfs", "blockfile"):
        (place / directory).mkdir(parents=True)
    name = target.snapshotter
    sections = _CONTAINERD + _SECTIONS.get(name, _PROXY if name in _PROXIES else "")
    (place / "config.toml").write_text(sections.format(place, name))
    (place / "nydusd.json").write_text(_NYDUSD)
    with ExitStack() as stack:
        if target.snapshotter == "btrfs":
            stack.enter_context(_btrfs(place.with_name("snapshots.img"), place / "btrfs"))
        if target.snapshotter == "blockfile":
            _scratch(place / "scratch")
        if proxy := _PROXIES.get(target.snapshotter):
            command = [word.format(place) for word in proxy]
            stack.enter_context(_daemon(command, place / f"{target.snapshotter}.sock", environment))
        command = ["containerd", "-c", str(place / "config.toml")]
        socket = place / "containerd.sock"
        stack.callback(umount_below, place)
        stack.enter_context(_daemon(command, socket, environment))
        yield socket


def _scratch(image: Path) -> None:
    """Create the template file system of block images, without lost+found.

    In blocks of 1 KiB, the default of mkfs for such a size, no symlink is longer than 1,023 bytes.
    """
    image.touch()
    os.truncate(image, _BLOCKS)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", image], check=True)
    subprocess.run(["debugfs", "-w", "-R", "rmdir lost+found", image], check=True)


@contextmanager
def _daemon(command: Sequence[str], socket: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a program, from the time it listens on its socket to the end of the block."""
    log = socket.with_suffix(".log")
    # Resolved here, because Popen uses the PATH of this process, not that of the environment.
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [program, *command[1:]], stdout=output, stderr=output, env=environment
        ) as process,
    ):
        until = time.monotonic() + 120
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise RuntimeError(f"{command[0]} does not start: {log.read_text()}")
            time.sleep(0.05)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def programs_missing(targets: Sequence[Target]) -> list[str]:
    """Return the programs that the targets require and that are not installed."""
    needed = {"mount"}
    for target in targets:
        if target.packages and not Suite(target.suite).is_here:
            needed.add("mmdebstrap")
        if target.on_btrfs or target.snapshotter == _BTRFS:
            needed.add("mkfs.btrfs")
        if target.snapshotter == "blockfile":
            needed |= {"mkfs.ext4", "debugfs"}
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in sorted(needed) if not shutil.which(name, path=path)]
