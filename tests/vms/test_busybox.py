"""busybox of the initrds is taken from the guests' suite, not from the host."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import Suite
from graphdriver_vms.images.kernel_image import static_busybox

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")


def _package(program: bytes, directory: Path) -> None:
    """Create a Debian package with this program as busybox."""
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: busybox-static\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x>\n"
        "Description: x\n"
    )
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/busybox").write_bytes(program)
    subprocess.run(["dpkg-deb", "-b", tree, directory / "b.deb"], check=True, capture_output=True)
    shutil.rmtree(tree)


@pytest.mark.parametrize("is_static", [True, False])
def test_only_a_static_busybox_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_static: bool
) -> None:
    program = b"\x7fELF" + b"\0" * 64 + (b"" if is_static else b"/lib64/ld-linux-x86-64.so.2\0")

    def download(suite: Suite, names: Sequence[str], directory: Path) -> list[Path]:
        assert names == ["busybox-static"]
        _package(program, directory)
        return [directory / "b.deb"]

    monkeypatch.setattr(Suite, "update", lambda suite: None)
    monkeypatch.setattr(Suite, "download", download)

    if is_static:
        assert static_busybox(tmp_path).read_bytes() == program
    else:
        with pytest.raises(CannotBuild, match="linked dynamically"):
            static_busybox(tmp_path)
