"""Packages of any Debian suite through a private apt root; the host's configuration is not
changed.
"""

import fnmatch
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from graphdriver_vms.errors import CannotBuild

__all__ = ["KEYRING", "Package", "Suite", "archive_of"]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True)
class Package:
    """A package of a suite."""

    name: str
    version: str


@cache
def _own_archives() -> dict[str, str]:
    """Return the archives that the host's apt uses: suite to URI, as apt itself reads them."""
    done = subprocess.run(
        [
            *("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"),
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(reversed([line.split(" ", 1) for line in done.stdout.splitlines()]))


def archive_of(suite: str) -> str:
    """Return the URI of the archive with `suite`, on the host's mirror.

    Security suites are in a separate archive, all others in the main one. Raises CannotBuild.
    """
    security = suite.endswith("-security")
    for known, uri in _own_archives().items():
        if known.endswith("-security") is security and "debian" in uri:
            return uri
    raise CannotBuild(
        f"this machine's apt has no Debian {'security ' * security}archive, and {suite} is in it",
        "add one to /etc/apt/sources.list.d",
    )


class Suite:
    """A suite of the archive, with its own package lists below `directory`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory

    def update(self) -> None:
        """Download the suite's list of packages and verify its signature. Raises CannotBuild."""
        for part in ("lists/partial", "cache/archives/partial"):
            (self._directory / part).mkdir(parents=True, exist_ok=True)
        (self._directory / "status").touch()
        (self._directory / "sources.list").write_text(
            f"deb [arch=amd64 signed-by={KEYRING}] {archive_of(self.name)} {self.name} main\n"
        )
        self._apt("apt-get", "update", "-qq", "--error-on=any")

    def newest(self, pattern: str) -> Package:
        """Return the package with the highest version whose name matches `pattern`."""
        prefix = pattern.partition("*")[0]
        names = self._apt("apt-cache", "pkgnames", prefix).split()
        found = [
            self._package(name)
            for name in fnmatch.filter(names, pattern)
            if not name.endswith(("-dbg", "-unsigned"))
        ]
        found = [one for one in found if one.version]
        if not found:
            raise CannotBuild(
                f"{self.name} has no package {pattern}",
                "name another in kernels.toml; mirrors keep few superseded kernels",
            )
        best = found[0]
        for one in found[1:]:
            if _is_later(one.version, best.version):
                best = one
        return best

    def parts(self, kernel: Package) -> list[str]:
        """Return the packages with the files of a kernel: since 6.19 there are several."""
        found, todo = [kernel.name], [kernel.name]
        release = kernel.name.removeprefix("linux-image-")
        while todo:
            text = self._apt("apt-cache", "depends", "--important", todo.pop())
            for line in text.splitlines():
                name = line.strip().removeprefix("PreDepends: ").removeprefix("Depends: ")
                if name.startswith("linux-") and name.endswith(release) and name not in found:
                    found.append(name)
                    todo.append(name)
        return found

    def download(self, names: Sequence[str], directory: Path) -> list[Path]:
        """Download packages into `directory` and return them."""
        self._apt("apt-get", "download", "-qq", *names, cwd=directory)
        return sorted(directory.glob("*.deb"))

    def _package(self, name: str) -> Package:
        text = self._apt("apt-cache", "show", "--no-all-versions", name)
        versions = [
            line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("Version: ")
        ]
        return Package(name, versions[0] if versions else "")

    def _apt(self, command: str, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::sourcelist": self._directory / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": self._directory / "lists",
            "Dir::State::status": self._directory / "status",
            "Dir::Cache": self._directory / "cache",
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
        }
        flags = [f"-o{key}={value}" for key, value in options.items()]
        done = subprocess.run(
            [command, *flags, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotBuild(
                f"{command} {' '.join(arguments)} for {self.name} failed:\n{done.stderr.strip()}",
                "see whether the mirror still has this suite",
            )
        return done.stdout


def _is_later(one: str, other: str) -> bool:
    command = ["dpkg", "--compare-versions", one, "gt", other]
    return subprocess.run(command, check=False).returncode == 0
