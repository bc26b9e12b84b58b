"""Archives of other programs are read as the tree that was packed."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from graphdriver.vfs import Driver
from graphdriver_conformance.oracle.compare import Aspect, assert_same_tree
from graphdriver_conformance.oracle.observe import observe

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: owners")

ALL = Aspect.ALL & ~Aspect.ROOT
# 7z stores no owners, and in PAX format no hard links.
UNOWNED = ALL & ~Aspect.OWNER
_GNU = "tar -cf - --numeric-owner --format"
_NAMES = "find . | sort |"
COMMANDS: dict[str, tuple[str, Aspect]] = {
    **{
        f"GNU tar, {name}": (f"{_GNU}={name} .", ALL)
        for name in ("v7", "ustar", "gnu", "oldgnu", "posix")
    },
    "GNU tar, sparse": (f"{_GNU}=gnu --sparse .", ALL),
    **{
        f"GNU tar, sparse {version}": (f"{_GNU}=posix --sparse-version={version} -S .", ALL)
        for version in ("0.0", "0.1", "1.0")
    },
    "GNU tar, attributes": (f"{_GNU}=posix --xattrs --acls .", ALL),
    "GNU tar, absolute names": (f'{_GNU}=gnu -P --transform="s,^\\./,/," .', ALL),
    "GNU tar, hard links as files": (
        f"{_GNU}=gnu --hard-dereference .",
        ALL & ~Aspect.HARDLINKS,
    ),
    **{
        f"bsdtar, {name}": (f"bsdtar --format {name} -cf - .", ALL)
        for name in ("pax", "paxr", "ustar", "gnutar", "v7")
    },
    "busybox tar": ("busybox tar -cf - .", ALL),
    "cpio, ustar": (f"{_NAMES} cpio --quiet -o -H ustar", ALL),
    "cpio, tar": (f"{_NAMES} cpio --quiet -o -H tar", ALL),
    "7z, GNU": ("7z a -ttar -snl -snh -so dummy .", UNOWNED),
    "7z, PAX": ("7z a -ttar -mm=pax -snl -so dummy .", UNOWNED & ~Aspect.HARDLINKS),
}
# These formats store a hundred bytes, or a hundred and the name of a directory.
SHORT = ("v7", "ustar", "cpio")
SPARSE = [name for name in COMMANDS if "sparse" in name]


def _plant(root: Path, name: str) -> None:
    (root / "d/sub").mkdir(parents=True)
    (root / "d/f").write_bytes(b"data\n" * 500)
    os.chown(root / "d/f", 1000, 100)
    (root / "d/f").chmod(0o4750)
    os.link(root / "d/f", root / "h")
    (root / "s").symlink_to("d/f")
    (root / "empty").touch(0o600)
    if not name.startswith("bsdtar"):  # which warns of names that are not UTF-8
        (root / "d/caf\udce9").write_bytes(b"no UTF-8")
    if not any(one in name for one in SHORT):
        (root / "d" / ("n" * 200)).write_bytes(b"long name")
        (root / "long").symlink_to("t" * 200)
    if name in SPARSE:
        with (root / "sparse").open("wb") as sparse:
            sparse.seek(5 << 20)
            sparse.write(b"middle")
            sparse.truncate(8 << 20)
    if "attributes" in name:
        os.setxattr(root / "d/f", "user.note", b"\0kept\n")
    for number, path in enumerate([root / "d/f", root / "empty", root / "d/sub", root / "d"]):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))


@pytest.mark.parametrize("name", COMMANDS)
def test_program_writes_what_the_driver_reads(tmp_path: Path, name: str) -> None:
    command, aspects = COMMANDS[name]
    program = command.removeprefix(_NAMES).split()[0]
    if not shutil.which(program):
        assert not os.environ.get("CI"), f"{program} is missing: .ci/run installs it"
        pytest.skip(f"{program} is not installed")
    tree = tmp_path / "tree"
    _plant(tree, name)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tree,
        check=True,
        capture_output=True,
        timeout=120,
    )
    driver = Driver(tmp_path / "home")
    driver.create("layer")

    driver.apply_diff("layer", "", io.BytesIO(done.stdout))

    assert_same_tree(observe(tree), observe(driver.get("layer")), f"of {name}", aspects)
