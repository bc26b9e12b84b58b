"""SEC-007, SEC-008, SEC-011: access of other users to layers, and programs from layers."""

import gzip
import os
import shutil
import subprocess
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import Node, Tree, file

NOBODY = 65534
# Programs that drivers call, and files that a program would load from a layer.
PROGRAMS = ["tar", "gzip", "unpigz", "xz", "zstd", "mount", "umount", "modprobe", "sh", "cp", "rm"]
LIBRARIES = ["libnss_files.so.2", "libc.so.6", "libnss_dns.so.2"]


def _as_nobody(graphdriver: Subject, *command: str) -> subprocess.CompletedProcess[bytes] | None:
    """Run a command as another user, from beside the home; None if it cannot be started."""
    if "/" not in command[0] and not shutil.which(command[0]):
        graphdriver.not_provable(f"the program {command[0]} is not installed")
    # From there, because a temporary directory above may be private.
    try:
        return subprocess.run(
            command,
            cwd=graphdriver.home.parent,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return None


def _from_beside(graphdriver: Subject, path: Path) -> str:
    return os.path.relpath(path, graphdriver.home.parent)


@verifies("SEC-007")
def test_others_cannot_read_layers(graphdriver: Subject) -> None:
    """A world-readable file in a base layer and in a child, held and not held."""
    image = Tree.of({"key": file(b"secret", 0o644)})
    base = graphdriver.build(image)
    child = graphdriver.new_layer(base, writable=True)
    for id in (base, child):
        root = graphdriver.get(id)
        # If the view is outside the home, its parent directories may not be the driver's.
        inside = root.is_relative_to(graphdriver.home.parent)
        depth = len(root.relative_to(graphdriver.home.parent).parts) if inside else 1
        paths = [root, *root.parents][:depth]
        for path in (root / "key", *paths):
            shown = _from_beside(graphdriver, path)
            done = _as_nobody(graphdriver, "ls" if path.is_dir() else "cat", shown)
            assert done is None or done.returncode, f"uid {NOBODY} can read {shown}"
        graphdriver.put(id)
        done = _as_nobody(graphdriver, "cat", _from_beside(graphdriver, root / "key"))
        assert done is None or done.returncode, f"uid {NOBODY} can read the layer that was put"


@verifies("SEC-011")
def test_others_cannot_run_setuid_programs(graphdriver: Subject) -> None:
    """id(1), owned by root and setuid, is copied into a layer."""
    program = shutil.which("id")
    if not program:
        graphdriver.not_provable("there is no id(1) to copy into a layer")
    with own_work(f"read {program}"):
        suid = file(Path(program).read_bytes(), 0o4755)
    child = graphdriver.new_layer(graphdriver.build(Tree.of({"id": suid})), writable=True)

    with graphdriver.view(child) as root:
        done = _as_nobody(graphdriver, _from_beside(graphdriver, root / "id"), "-u")

    assert done is None, f"uid {NOBODY} ran it from the layer: {done and done.stdout.decode()}"


@verifies("SEC-008")
def test_no_program_of_a_layer_is_run(graphdriver: Subject) -> None:
    """The layer contains every program that a driver might call; each records its execution."""
    mark = graphdriver.home.parent / "it-ran"
    script = file(f"#!/bin/sh\n: > '{mark}'\n".encode(), 0o755)
    nodes: dict[str | bytes, Node | bytes | str] = {}
    for directory in ("bin", "usr/bin", "sbin", "usr/sbin"):
        nodes |= {f"{directory}/{name}": script for name in PROGRAMS}
    nodes |= {f"lib/{name}": file(b"no library", 0o755) for name in LIBRARIES}
    nodes |= {"etc/ld.so.preload": b"/lib/libc.so.6\n", "etc/nsswitch.conf": b"passwd: files dns\n"}
    base = graphdriver.build(Tree.of(nodes))
    layer = graphdriver.new_layer(base, writable=True)
    archive = build_archive([entry_of("etc/motd", file(b"hello"))])

    with graphdriver.view(layer):
        for stream in (archive, gzip.compress(archive)):
            try:
                graphdriver.apply_diff(layer, base, stream)
            except (DriverError, OSError) as error:
                graphdriver.note(f"refused: {error}")
        graphdriver.diff_bytes(layer, base)
        graphdriver.diff_bytes(layer)
        if graphdriver.claims(Capability.CHANGES):
            graphdriver.changes(layer, base)
        if graphdriver.claims(Capability.DIFF_SIZE):
            graphdriver.diff_size(layer, base)
    graphdriver.remove(layer)

    assert not mark.exists(), "a program from the layer was executed"
