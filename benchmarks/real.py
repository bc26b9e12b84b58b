"""A real root file system: minimal Debian with a compiler, and its upgrade as a second layer.

The archives are created once, with mmdebstrap, and cached in
$XDG_CACHE_HOME/graphdriver-benchmarks. The upgrade is the difference, by content, between the root
file systems of two Debian releases.
"""

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from benchmarks.comparison import Aim, Candidate, Comparison, between
from benchmarks.comparisons import (
    DOCKER,
    OURS,
    STORAGE,
    TAR,
    apply_comparison,
    apply_file,
    diff_comparison,
    drain,
    shell,
)
from benchmarks.workspace import Record, Workspace
from graphdriver.overlay2 import Driver
from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import KEYRING, archive_of

__all__ = ["root_filesystem"]

_RELEASES = ("bookworm", "trixie")
_PACKAGES = "gcc,libc6-dev,make"
_AIMS = (Aim(OURS, DOCKER, 1.0), Aim(OURS, STORAGE, 1.0), Aim(OURS, TAR, 1.4))


def root_filesystem(workspace: Workspace, record: Record) -> None:
    """Diff, apply and changes of a root file system and of its upgrade."""
    try:
        base, upgrade = _archives(workspace)
    except (CannotBuild, OSError, subprocess.CalledProcessError) as error:
        record.leave_out("a real root file system", f"mmdebstrap cannot make one: {error}")
        return
    driver, docker, storage = workspace.driver, workspace.docker, workspace.storage
    tree = workspace.place / "tree"
    tree.mkdir()
    shell(f"tar -C {tree} -xf {base}")
    record.measure(diff_comparison(workspace, "Debian root file system", tree, base, _AIMS))
    record.measure(apply_comparison(workspace, "Debian root file system", base, _AIMS))

    driver.create("base")
    apply_file(driver, "base", "", base)
    driver.create("upgrade", "base")
    fresh = partial(
        between, partial(driver.create, "fresh", "base"), partial(driver.remove, "fresh")
    )
    target = workspace.place / "target"
    applying = [
        Candidate(OURS, partial(apply_file, driver, "fresh", "base", upgrade), fresh),
        Candidate(
            TAR,
            partial(shell, f"tar -C {target} -xf {upgrade}"),
            partial(between, target.mkdir, partial(shutil.rmtree, target)),
        ),
    ]
    upper = workspace.place / "home/upgrade/diff"
    packing = [
        Candidate(OURS, partial(drain, driver, "upgrade", "base")),
        Candidate(TAR, partial(shell, f"tar -C {upper} -cf - . | cat >/dev/null")),
    ]
    comparing = [Candidate(OURS, partial(driver.changes, "upgrade", "base"))]
    if docker:
        docker.call("create", "base")
        docker.call("apply", "base", "", base)
        docker.call("create", "upgrade", "base")
        docker.call("apply", "upgrade", "base", upgrade)
        create, remove = partial(docker.call, "create"), partial(docker.call, "remove")
        around = partial(between, partial(create, "fresh", "base"), partial(remove, "fresh"))
        run = partial(docker.time, "apply", "fresh", "base", upgrade)
        applying.append(Candidate(DOCKER, run, around))
        packing.append(Candidate(DOCKER, partial(docker.time, "diff", "upgrade", "base")))
        comparing.append(Candidate(DOCKER, partial(docker.time, "changes", "upgrade", "base")))
    if storage:
        storage.create("base")
        storage.apply("base", base)
        storage.create("upgrade", "base")
        storage.apply("upgrade", upgrade)
        around = partial(
            between, partial(storage.create, "fresh", "base"), partial(storage.delete, "fresh")
        )
        applying.append(Candidate(STORAGE, partial(storage.apply, "fresh", upgrade), around))
        packing.append(Candidate(STORAGE, partial(storage.diff, "upgrade")))
        comparing.append(Candidate(STORAGE, partial(storage.changes, "upgrade")))
    apply_file(driver, "upgrade", "base", upgrade)
    record.measure(Comparison("diff, upgrade of Debian", packing, _AIMS))
    record.measure(Comparison("apply, upgrade of Debian", applying, _AIMS))
    record.measure(Comparison("changes, upgrade of Debian", comparing, _AIMS[:2]))


def _archives(workspace: Workspace) -> tuple[Path, Path]:
    """Return the archives of the base layer and of the upgrade. Raises if it cannot create them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "graphdriver-benchmarks"
    directory.mkdir(parents=True, exist_ok=True)
    roots = [_root(release, directory) for release in _RELEASES]
    upgrade = directory / "upgrade.tar"
    if not upgrade.exists():
        driver = Driver(workspace.place / "roots")
        for release, archive in zip(_RELEASES, roots, strict=True):
            driver.create(release)
            apply_file(driver, release, "", archive)
        part = upgrade.with_suffix(".part")
        # Neither is the parent of the other, so they are compared by content.
        with driver.diff(_RELEASES[1], _RELEASES[0]) as stream, part.open("wb") as file:
            shutil.copyfileobj(stream, file)
        part.rename(upgrade)
        for release in _RELEASES:
            driver.remove(release)
    return roots[0], upgrade


def _root(release: str, directory: Path) -> Path:
    """Return the archive of a release's root file system."""
    archive = directory / f"{release}.tar"
    if not archive.exists():
        part = directory / f"{release}.part.tar"
        source = f"deb [signed-by={KEYRING}] {archive_of(release)} {release} main"
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"]
        # A mirror may be some weeks old.
        command += ['--aptopt=Acquire::Check-Valid-Until "false"', f"--include={_PACKAGES}"]
        subprocess.run([*command, release, part, source], check=True)
        part.rename(archive)
    return archive
