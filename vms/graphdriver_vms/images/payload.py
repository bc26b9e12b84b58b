"""The packages in the guests: the suite's wheel, its dependencies and the drivers under test."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.rootfs import GUEST_PYTHON

__all__ = ["BROKEN_DRIVERS", "broken_drivers", "host_packages", "make_payload"]

BROKEN_DRIVERS = "graphdriver_mutants"
"""The package of broken drivers that some cells test."""

_SUITE = "graphdriver_conformance.suite"
# Guests are amd64 with glibc 2.36; wheels for older ones run there.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def make_payload(payload: Path, installables: Sequence[str]) -> None:
    """Install this distribution and `installables` (wheels, paths) below `payload`.

    Guests have no network: pip resolves on the host, for the guests' Python. Raises CannotBuild.
    """
    shutil.rmtree(payload, ignore_errors=True)
    # The name is required: Hypothesis reads all source files outside of site-packages for
    # constants, which takes half a minute under emulation.
    target = payload / "site-packages"
    wheels = payload.with_name("payload-wheels")
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    try:
        built = [_wheel(one, wheels) for one in (_ourselves(), *installables)]
        _pip(
            *("install", "--quiet", "--no-compile", "--target", str(target)),
            *("--python-version", GUEST_PYTHON, "--implementation", "cp", "--only-binary=:all:"),
            *(f"--platform={one}" for one in _PLATFORMS),
            *map(str, built),
        )
        if mutants := broken_drivers():
            shutil.copytree(mutants, target / mutants.name)
        _compile(target)
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def host_packages(target: Path, installables: Sequence[str]) -> tuple[Path, ...]:
    """Return the packages that this Python lacks for a plan: `installables` and the broken drivers.

    For guests that use the host's own programs. Raises CannotBuild.
    """
    found = []
    if installables:
        _pip("install", "--quiet", "--target", str(target), *installables)
        found.append(target)
    if mutants := broken_drivers():
        found.append(mutants.parent)
    return tuple(found)


def broken_drivers() -> Path | None:
    """Return the package of broken drivers in a checkout, None for an installed package."""
    repository = _repository()
    return repository / "tests" / BROKEN_DRIVERS if repository else None


def _compile(target: Path) -> None:
    """Compile on the host, which is ten times as fast, if it has the guests' Python version."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == GUEST_PYTHON:
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", "-s", target, target],
            stdout=subprocess.DEVNULL,
            check=False,
        )
        # pytest compiles tests and plugins itself, when it first imports them.
        collect = ["--collect-only", "-q", "-p", "no:cacheprovider"]
        subprocess.run(
            [sys.executable, "-S", "-m", "pytest", *collect, "--pyargs", _SUITE],
            cwd=target.parent,
            env={**os.environ, "PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": ""},
            stdout=subprocess.DEVNULL,
            check=False,
        )


def _repository() -> Path | None:
    """Return the checkout of this module, None for an installed package."""
    repository = Path(__file__).parents[3]
    is_checkout = (repository / "pyproject.toml").is_file() and (
        repository / "Vagrantfile"
    ).is_file()
    return repository if is_checkout else None


def _ourselves() -> str:
    """Return the repository of this module, or the installed version, for pip."""
    if repository := _repository():
        return str(repository)
    ours = distribution("graphdriver-conformance")
    # PEP 610: the source of the installation, unless it was an index.
    origin = json.loads(ours.read_text("direct_url.json") or "{}").get("url", "")
    wheel = Path(unquote(urlsplit(origin).path))
    if origin.startswith("file:") and wheel.exists():
        return str(wheel)
    return f"graphdriver-conformance=={ours.version}"


def _wheel(what: str, wheels: Path) -> str:
    path = Path(what)
    if path.suffix == ".whl" or not path.exists():
        return what
    before = set(wheels.glob("*.whl"))
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(path))
    (made,) = set(wheels.glob("*.whl")) - before
    return str(made)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = re.sub(r"(?m)^WARNING: .*\n", "", done.stderr).strip()
        raise CannotBuild(f"pip {arguments[0]} failed:\n{message[-2000:]}")
