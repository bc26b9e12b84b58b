"""Debian suites, unpacked: each contains one version of the drivers, and its build dependencies.

The packages are downloaded through a private apt root (mmdebstrap), so that no package of the
machine is upgraded; maintainer scripts are not run. If the machine itself runs the suite and has
the packages installed, these are used.

    PATH=$(python -m tests.real.suites trixie dockerd containerd):$PATH pytest tests/dockerd
"""

import gzip
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from graphdriver_vms.images.apt import KEYRING, archive_of

__all__ = ["SUITES", "Suite", "short"]

SUITES = ("bookworm", "trixie", "sid")
"""From the oldest to the newest; sid changes, so the page lists the versions."""

_BUILD_DOCKER = (
    *("golang-github-docker-docker-dev", "golang-github-vbatts-tar-split-dev", "golang-go"),
    *("gcc", "libc6-dev", "libbtrfs-dev", "pkg-config"),
)
_PACKAGES = (
    *_BUILD_DOCKER,
    *("containers-storage", "containerd", "docker.io", "fuse-overlayfs", "patchelf"),
)
_NEWER = ("erofs-utils", "nydus-snapshotter", "soci-snapshotter")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = "lib64/ld-linux-x86-64.so.2"


class Suite:
    """A suite by its code name; its root is created at the first use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._root = _cache() / name

    @property
    def is_here(self) -> bool:
        """Whether this machine runs the suite."""
        return platform.freedesktop_os_release().get("VERSION_CODENAME") == self.name

    def provide(self, programs: Sequence[str], packages: Sequence[str]) -> Path | None:
        """Return a directory with the programs, None if the installed ones are used."""
        if self.is_here and all(_version(package) for package in packages):
            return None
        return self.directory(programs)

    def directory(self, programs: Sequence[str]) -> Path:
        """Return a directory with programs of the suite."""
        self._make()
        directory = self._root / "programs"
        directory.mkdir(exist_ok=True)
        for name in programs:
            if not (directory / name).exists():
                self._adapt(name, directory / name)
        return directory

    def docker(self, source: Path | None = None) -> Path:
        """Return gdserve, or the program of `source`, built with Docker of the suite."""
        self._make()
        build = Path(__file__).parents[1] / "gdserve" / "build"
        program = self._root / "programs" / (source.stem if source else "gdserve")
        program.parent.mkdir(exist_ok=True)
        newest = max(path.stat().st_mtime for path in (source or build, *build.parent.glob("*.go")))
        if not program.exists() or program.stat().st_mtime < newest:
            subprocess.run([build, program, self._root, *([source] if source else [])], check=True)
        return program

    def version(self, package: str) -> str:
        """Return the version of a package, from dpkg or from the changelog in the root."""
        return (_version(package) if self.is_here else "") or self._logged_version(package)

    def _logged_version(self, package: str) -> str:
        documents = self._root / "usr" / "share" / "doc" / package
        for log in documents.glob("changelog.Debian*gz"):
            with gzip.open(log, "rt", errors="replace") as lines:
                found = re.match(r"\S+ \((\S+)\)", lines.readline())
            if found:
                return found[1]
        return "?"

    def _make(self) -> None:
        """Unpack the packages unless this is done; an incomplete root is never used."""
        if self._root.is_dir():
            return
        part = self._root.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        packages = _PACKAGES if self.name == SUITES[0] else (*_PACKAGES, *_NEWER)
        source = f"deb [signed-by={KEYRING}] {archive_of(self.name)} {self.name} main"
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=extract", "--mode=root"),
                # A mirror may be some weeks old.
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--include={','.join(packages)}", self.name, part, source),
            ],
            check=True,
        )
        for name in ("bin", "sbin", "lib", "lib64"):
            if not (part / name).exists():
                (part / name).symlink_to(f"usr/{name}")
        part.rename(self._root)

    def _adapt(self, name: str, copy: Path) -> None:
        """Copy a program; if this machine's libraries are too old, make it load its suite's.

        It is not started through the loader, because Go programs execute /proc/self/exe again.
        Programs that run with the installed libraries are not changed, as patchelf breaks some Go
        programs.
        """
        found = [self._root / place / name for place in ("usr/bin", "usr/sbin")]
        shutil.copy2(next(path for path in found if path.exists()), copy)
        listed = subprocess.run(
            [Path("/") / _LOADER, "--list", copy], capture_output=True, text=True, check=False
        )
        # The loader reports symbol versions that are too old, or the first library that is missing.
        output = listed.stdout + listed.stderr
        if "not found" not in output and "cannot open shared object file" not in output:
            return
        loader, libraries = str(self._root / _LOADER), str(self._root / _LIBRARIES)
        command = [loader, "--library-path", libraries, str(self._root / "usr/bin/patchelf")]
        command += ["--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries]
        subprocess.run([*command, str(copy)], check=True)


def short(version: str) -> str:
    """Return the upstream release in a package version: 26.1 of 26.1.5+dfsg1-9."""
    found = re.match(r"(?:\d+:)?(\d+\.\d+)", version)
    return found[1] if found else version


def _cache() -> Path:
    chosen = os.environ.get("GRAPHDRIVER_SUITES")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "graphdriver-suites"


@cache
def _version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f=${Version}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


def main() -> int:
    """Print the directory with programs of a suite: SUITE PROGRAM ..."""
    suite, *programs = sys.argv[1:]
    print(Suite(suite).directory(programs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
