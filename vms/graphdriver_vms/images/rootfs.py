"""The guests' root file system and the box made of it: a small Debian without an init system."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from importlib.resources import files
from pathlib import Path

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import KEYRING, archive_of
from graphdriver_vms.locks import exclusive

__all__ = ["GUEST_PYTHON", "SUITE", "Box", "box_of", "build_box"]

# The suite needs Python 3.11, which bookworm has; the kernel is from another suite.
SUITE = "bookworm"
GUEST_PYTHON = "3.11"
_PACKAGES = (
    *("openssh-server", "sudo", "rsync", "iproute2", "kmod", "busybox-static", "python3"),
    # Dependencies of the suite and of the plan's file systems.
    *("e2fsprogs", "xfsprogs", "btrfs-progs", "uidmap", "attr", "libcap2-bin", "zstd"),
)
_DISK = "4G"
_LEAVE_OUT = ("doc", "man", "locale", "info", "lintian", "bash-completion", "zsh")
_SCRIPTS = {
    "guest-init": "sbin/graphdriver-init",
    "udhcpc": "usr/share/graphdriver/udhcpc",
}


class Box:
    """A box in the cache, named by a hash of its inputs."""

    def __init__(self, cache: Path, digest: str) -> None:
        self.name = f"graphdriver-{digest[:12]}"
        self.directory = cache / "boxes" / self.name
        self.file = self.directory / "box.tar"
        self.root = self.directory / "root.tar"

    def disk(self) -> Path:
        """Return the disk of the box, which is unpacked at the first use. Raises OSError."""
        image = self.directory / "box.img"
        if not image.is_file():
            with tarfile.open(self.file) as box:
                part = self.directory / f".box.img.{os.getpid()}"
                member = box.extractfile("box.img")
                assert member is not None
                with part.open("wb") as out:
                    shutil.copyfileobj(member, out, 1 << 20)
                part.rename(image)
        return image

    def is_there(self, with_disk: bool) -> bool:
        """Whether it was built completely, `with_disk` including the disk for libvirt."""
        return (self.file if with_disk else self.root).is_file()


def box_of(cache: Path) -> Box:
    """Return the box for the current recipe."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in _SCRIPTS:
        digest.update(_script(name))
    return Box(cache, digest.hexdigest())


def build_box(cache: Path, with_disk: bool = True) -> Box:
    """Build it, unless it is cached; an interrupted build leaves nothing. Raises CannotBuild.

    Without the disk only the root file system is built, for machines of public boxes.
    """
    box = box_of(cache)
    with exclusive(cache, "box"):
        if not box.is_there(with_disk):
            _build(cache, box, with_disk)
    return box


def _build(cache: Path, box: Box, with_disk: bool) -> None:
    work = cache / "boxes" / f".{box.name}.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        root = work / "root"
        _bootstrap(root)
        _customize(root)
        _run("tar", "-C", root, "--sort=name", "-cf", work / "root.tar", ".")
        if with_disk:
            _disk_image(root, work)
        shutil.rmtree(root)
        shutil.rmtree(box.directory, ignore_errors=True)
        work.rename(box.directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _bootstrap(root: Path) -> None:
    source = f"deb [signed-by={KEYRING}] {archive_of(SUITE)} {SUITE} main"
    _run(
        *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--architectures=amd64"),
        f"--include={','.join(_PACKAGES)}",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEAVE_OUT),
        *(_user_hook(name, uid) for name, uid in (("vagrant", 1000), ("ordinary", 1001))),
        *(SUITE, str(root), source),
    )


def _user_hook(name: str, uid: int) -> str:
    # Unusable password '*': sshd rejects locked ('!') accounts.
    options = f"--password '*' --create-home --shell /bin/bash --uid {uid}"
    return f"--customize-hook=chroot $1 useradd {options} {name}"


def _customize(root: Path) -> None:
    for name, place in _SCRIPTS.items():
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_script(name))
        target.chmod(0o755)
    keys = root / "home/vagrant/.ssh"
    keys.mkdir(mode=0o700)
    (keys / "authorized_keys").write_text(_insecure_key())
    _run("chown", "-R", "1000:1000", keys)
    (root / "etc/sudoers.d/vagrant").write_text("vagrant ALL=(ALL) NOPASSWD:ALL\n")
    (root / "etc/hostname").write_text("graphdriver\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost graphdriver\n")
    # The guest has no name server: sshd would wait for one.
    (root / "etc/ssh/sshd_config.d/graphdriver.conf").write_text("UseDNS no\nUsePAM no\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    command = root / "usr/local/bin/graphdriver"
    command.write_text(
        "#!/bin/sh\nexport PYTHONPATH=/opt/graphdriver/site-packages\n"
        'exec python3 -m graphdriver_conformance "$@"\n'
    )
    command.chmod(0o755)


def _disk_image(root: Path, work: Path) -> None:
    """Create the box: one file system on the whole disk, because kernels are booted without a
    loader.
    """
    raw, image = work / "disk.raw", work / "box.img"
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, raw, _DISK)
    _run("qemu-img", "convert", "-O", "qcow2", raw, image)
    raw.unlink()
    metadata = work / "metadata.json"
    metadata.write_text(json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": 4}))
    with tarfile.open(work / "box.tar", "w") as box:
        box.add(metadata, "metadata.json")
        box.add(image, "box.img")
    image.unlink()


def _insecure_key() -> str:
    """Return Vagrant's well-known public key; guests are reachable from this host only."""
    for pattern in (
        "/usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub",
        "/opt/vagrant/embedded/gems/*/gems/vagrant-*/keys/vagrant.pub",
    ):
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            return path.read_text()
    raise CannotBuild("no vagrant.pub, Vagrant's public key", "install vagrant")


def _script(name: str) -> bytes:
    return (files("graphdriver_vms") / "guest" / name).read_bytes()


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"{command[0]} failed:\n{done.stderr.strip()[-2000:]}")
