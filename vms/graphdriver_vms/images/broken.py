"""Broken kernels: Debian's user-mode Linux with an overlay module that has one bug."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import Suite
from graphdriver_vms.images.uml_image import UmlImage, build_uml
from graphdriver_vms.kernels import data_file, load_kernels
from graphdriver_vms.locks import exclusive

__all__ = ["UNMODIFIED", "BrokenKernel", "Workshop", "load_broken"]

UNMODIFIED = "unmodified"
"""The name of the kernel without a bug."""

_KERNEL, _SOURCE = "6.1", "linux-source-6.1"


@dataclass(frozen=True, slots=True)
class BrokenKernel:
    """One bug; `broken_kernels.toml` explains the keys."""

    name: str
    about: str
    bug: str
    file: str
    before: str
    after: str
    requirement: str
    cell: str

    def edited(self, text: str) -> str:
        """Return the source with the bug. Raises CannotBuild unless the text to replace occurs
        once.
        """
        before, after = self.before.strip("\n"), self.after.strip("\n")
        if text.count(before) != 1:
            raise CannotBuild(
                f"{self.name}: the text to replace is {text.count(before)} times in {self.file}",
                "adapt broken_kernels.toml to this source",
            )
        return text.replace(before, after)


def load_broken(path: Path | None = None) -> dict[str, BrokenKernel]:
    """Return the broken kernels by name. Raises ValueError, TypeError."""
    path = path or data_file("broken_kernels.toml")
    found: dict[str, BrokenKernel] = {}
    for entry in tomllib.loads(path.read_text())["broken"]:
        kernel = BrokenKernel(**entry)
        if kernel.name in found or kernel.name == UNMODIFIED:
            raise ValueError(f"{path}: {kernel.name} is there twice, or a name of its own")
        found[kernel.name] = kernel
    return found


class Workshop:
    """Builds overlayfs with a bug, as a module of Debian's user-mode Linux, in the cache.

    Only the module is compiled: seconds instead of the minutes for a kernel. Until `uses` is
    closed, no other run replaces the unmodified kernel.
    """

    def __init__(
        self, cache: Path, report: Callable[[str], None], uses: contextlib.ExitStack
    ) -> None:
        self._cache = cache
        self._uses = uses
        self._base = cache / "broken"
        self._report = report

    def build(self, kernels: Sequence[BrokenKernel]) -> dict[str, UmlImage]:
        """Return the unmodified kernel and `kernels` by name. Raises CannotBuild."""
        # Modules are named by a hash of their inputs, and never replaced.
        with exclusive(self._cache, "broken"):
            return self._built(kernels)

    def _built(self, kernels: Sequence[BrokenKernel]) -> dict[str, UmlImage]:
        kernel = load_kernels()[_KERNEL]
        uml = build_uml(self._cache, kernel, self._uses)
        wanted: dict[str, BrokenKernel | None] = {UNMODIFIED: None}
        wanted |= {one.name: one for one in kernels}
        places = {name: self._place(uml, name, one) for name, one in wanted.items()}
        if not all(place.is_dir() for place in places.values()):
            tree = _Tree(self._source(kernel.uml, uml.release), self._base / uml.release, uml)
            tree.prepare(self._report)
            for name, one in wanted.items():
                if not places[name].is_dir():
                    self._report(f"{name}: {one.about if one else 'no bug'}")
                    tree.make(one, places[name])
        return {
            name: UmlImage(uml.release, uml.program, (place,)) for name, place in places.items()
        }

    def _place(self, uml: UmlImage, name: str, kernel: BrokenKernel | None) -> Path:
        """Return the directory of a kernel's modules, named by a hash of all inputs."""
        change = f"{kernel.file}\0{kernel.before}\0{kernel.after}" if kernel else ""
        digest = hashlib.sha256(f"{uml.release}\0{change}".encode()).hexdigest()[:12]
        return self._base / "kernels" / f"{name}-{digest}"

    def _source(self, suite_name: str, release: str) -> Path:
        """Return the source of a release, downloaded unless it is cached. Raises CannotBuild."""
        source = self._base / "source" / release
        if source.is_dir():
            return source
        with exclusive(self._cache, f"uml-{suite_name}"):
            return self._fetch_source(suite_name, release, source)

    def _fetch_source(self, suite_name: str, release: str, source: Path) -> Path:
        suite = Suite(suite_name, self._cache / "apt" / f"uml-{suite_name}")
        suite.update()
        version = suite.newest(_SOURCE).version
        if version.partition("-")[0] != release:
            raise CannotBuild(
                f"{suite_name} has user-mode Linux {release}, and the source of {version}",
                "a module is for its kernel only: try again when they are of one release",
            )
        self._report(f"{_SOURCE} {version}")
        work = source.with_name(f".{release}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            (deb,) = suite.download([_SOURCE], work)
            _run("dpkg-deb", "-x", deb, work / "package")
            (archive,) = (work / "package/usr/src").glob("linux-source-*.tar.*")
            (work / "tree").mkdir()
            _run("tar", "-C", work / "tree", "--strip-components=1", "-xf", archive)
            (work / "tree").rename(source)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return source


class _Tree:
    """A kernel's source, and its builds below `work`."""

    def __init__(self, source: Path, work: Path, uml: UmlImage) -> None:
        self._source = source
        self._objects = work / "objects"
        self._overlayfs = work / "overlayfs"
        self._uml = uml
        # Otherwise a checkout around the cache would be part of the release.
        self._command = (
            "make",
            "-s",
            "-C",
            source,
            "ARCH=um",
            f"O={self._objects}",
            "LOCALVERSION=",
        )

    def prepare(self, report: Callable[[str], None]) -> None:
        """Configure the source like the kernel. Raises CannotBuild."""
        done = self._objects / ".prepared"
        if done.is_file():
            return
        report("headers of the kernel")
        self._objects.mkdir(parents=True, exist_ok=True)
        config = _run(self._uml.program, "--showconfig")
        (self._objects / ".config").write_text(config)
        _run(*self._command, "olddefconfig")
        _run(*self._command, self._jobs(), "modules_prepare")
        shutil.rmtree(self._overlayfs, ignore_errors=True)
        shutil.copytree(self._source / "fs/overlayfs", self._overlayfs)
        done.touch()

    def make(self, kernel: BrokenKernel | None, place: Path) -> None:
        """Create a directory of modules whose overlay has the bug. Raises CannotBuild."""
        with _edited(self._overlayfs, kernel):
            _run(
                *self._command,
                *(f"M={self._overlayfs}", "CONFIG_OVERLAY_FS=m", "KBUILD_MODPOST_WARN=1"),
                *(self._jobs(), "modules"),
            )
        (base,) = self._uml.modules_base
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(base / "lib", part / "lib", copy_function=os.link)
        target = part / "lib/modules" / self._uml.release / "kernel/fs/overlayfs/overlay.ko"
        # It is a hard link to a file of the base: the link is removed, the file is kept.
        target.unlink()
        shutil.copy(self._overlayfs / "overlay.ko", target)
        part.rename(place)

    def _jobs(self) -> str:
        return f"-j{len(os.sched_getaffinity(0))}"


@contextlib.contextmanager
def _edited(directory: Path, kernel: BrokenKernel | None) -> Iterator[None]:
    """Apply the bug to the source for the duration of the block. Raises CannotBuild."""
    if kernel is None:
        yield
        return
    file = directory / kernel.file
    unmodified = file.read_text()
    broken = kernel.edited(unmodified)
    file.write_text(broken)
    try:
        yield
    finally:
        file.write_text(unmodified)


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise CannotBuild(
            f"there is no {command[0]}", "apt-get install gcc make flex bison bc xz-utils"
        ) from None
    if done.returncode:
        words = " ".join(map(str, command[:2]))
        raise CannotBuild(f"{words} failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
