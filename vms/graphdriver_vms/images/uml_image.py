"""A kernel of user-mode Linux: Debian's program and modules, or one of the user's own."""

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import Suite
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.locks import exclusive, is_in_use, shared

__all__ = ["UmlImage", "build_uml", "release_of"]

_PACKAGE = "user-mode-linux"
_LOADER = "lib64/ld-linux-x86-64.so.2"
_RECIPE = 1
_DAY = 86400


@dataclass(frozen=True, slots=True)
class UmlImage:
    """A kernel that can be started; `modules_base` contains lib/modules, or is empty."""

    release: str
    program: Path
    modules_base: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class _Made:
    """The inputs of a directory of the cache."""

    release: str
    version: str
    recipe: int = _RECIPE


def build_uml(cache: Path, kernel: Kernel, uses: ExitStack) -> UmlImage:
    """Download Debian's kernel of a series unless the suite's current one is cached.

    The mirror is queried once a day. Until `uses` is closed, no other run replaces the kernel; one
    that another run uses is not replaced by a newer one. Raises CannotBuild.
    """
    use = f"use-uml-{kernel.name}"
    # By suite, because its apt root is shared with the sources of the broken kernels.
    with exclusive(cache, f"uml-{kernel.uml}"):
        image = _current(cache, kernel, use)
        uses.enter_context(shared(cache, use))
    return image


def _current(cache: Path, kernel: Kernel, use: str) -> UmlImage:
    place = cache / "uml" / kernel.name
    made = _known(place)
    if made and time.time() - (place / "kernel.json").stat().st_mtime < _DAY:
        return UmlImage(made.release, place / "linux", (place,))
    suite = Suite(kernel.uml, cache / "apt" / f"uml-{kernel.uml}")
    suite.update()
    package = suite.newest(_PACKAGE)
    if made and (made.version == package.version or is_in_use(cache, use)):
        (place / "kernel.json").touch()
        return UmlImage(made.release, place / "linux", (place,))
    work = place.with_name(f".{kernel.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        _unpack(suite, _PACKAGE, work / "files")
        (work / "files/usr/bin/linux.uml").rename(work / "linux")
        if not _starts(work / "linux"):
            _copy_libc(suite, work, place)
        (work / "lib").mkdir(exist_ok=True)
        (work / "files/usr/lib/uml/modules").rename(work / "lib/modules")
        shutil.rmtree(work / "files")
        with exclusive(cache, use):
            shutil.rmtree(place, ignore_errors=True)
            # Named by its directory, because the program contains the loader's path.
            work.rename(place)
        made = _Made(release_of(place / "linux"), package.version)
        (place / "kernel.json").write_text(json.dumps(asdict(made)))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not kernel.has_release(made.release):
        raise CannotBuild(
            f"{kernel.uml} has user-mode Linux {made.release}, not {kernel.series}",
            "name another suite in kernels.toml",
        )
    return UmlImage(made.release, place / "linux", (place,))


def release_of(program: Path) -> str:
    """Return the release of a user-mode Linux kernel, from `--version`. Raises CannotBuild."""
    try:
        done = _version(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{program} does not start: {error}") from None
    words = done.stdout.split()
    if done.returncode or not words:
        raise CannotBuild(f"{program} --version failed: {done.stderr.strip()[-300:]}")
    return words[0]


def _starts(program: Path) -> bool:
    try:
        return not _version(program).returncode
    except OSError:
        return False


def _version(program: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [program, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _copy_libc(suite: Suite, work: Path, place: Path) -> None:
    """Copy the C library of the program's own suite: this host's is older."""
    _unpack(suite, "libc6", work / "libc")
    try:
        done = subprocess.run(
            [
                *("patchelf", "--set-interpreter", place / "libc/usr" / _LOADER),
                *("--force-rpath", "--set-rpath", place / "libc/usr/lib/x86_64-linux-gnu"),
                work / "linux",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CannotBuild(
            f"this host's C library is older than that of {suite.name}, and there is no patchelf",
            "apt-get install patchelf",
        ) from None
    if done.returncode:
        raise CannotBuild(f"patchelf failed: {done.stderr.strip()[-300:]}")


def _unpack(suite: Suite, package: str, target: Path) -> None:
    debs = target.with_name(f"{target.name}-deb")
    debs.mkdir(parents=True)
    for deb in suite.download([package], debs):
        done = subprocess.run(
            ["dpkg-deb", "-x", deb, target], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotBuild(f"dpkg-deb failed: {done.stderr.strip()[-300:]}")
    shutil.rmtree(debs)


def _known(place: Path) -> _Made | None:
    try:
        made = _Made(**json.loads((place / "kernel.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    is_ours = made.recipe == _RECIPE and os.access(place / "linux", os.X_OK)
    return made if is_ours else None
