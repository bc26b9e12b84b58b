"""A kernel to boot: its image, and an initrd with the modules that a guest may need."""

import gzip
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.apt import Suite
from graphdriver_vms.images.rootfs import SUITE
from graphdriver_vms.kernels import Kernel
from graphdriver_vms.locks import exclusive, is_in_use, shared

__all__ = ["KernelImage", "build_kernel", "make_initrd", "static_busybox"]

_BOOT = ("virtio_pci", "virtio_blk", "ext4")
_REST = (
    *("virtio_net", "virtio_rng", "af_packet", "overlay", "loop", "fuse", "squashfs", "erofs"),
    *("xfs", "btrfs", "quota_v2", "nls_utf8", "binfmt_misc"),
    # By feature, as btrfs requests it: 6.18 no longer has crc32c_generic.
    *("crypto-crc32c", "libcrc32c"),
)
_SCRIPTS = {"initrd-init": "init", "direct-init": "direct-init"}
_LISTS = ("modules.builtin", "modules.order", "modules.builtin.modinfo")
_DECOMPRESS = {".xz": lzma.decompress, ".gz": gzip.decompress, ".zst": None, ".ko": bytes}


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel in the cache; `release` is the expected result of uname(2)."""

    release: str
    package: str
    version: str
    recipe: str

    @staticmethod
    def directory(cache: Path, kernel: Kernel) -> Path:
        """Return its directory: `vmlinuz`, `initrd`, `kernel.json`."""
        return cache / "kernels" / kernel.name


def static_busybox(cache: Path) -> Path:
    """Return busybox for the initrds, from the guests' own suite. Raises CannotBuild.

    The host's may be linked dynamically, and the initrd has no interpreter for it.
    """
    place = cache / "busybox" / SUITE / "busybox"
    with exclusive(cache, "busybox"):
        if not place.is_file():
            _fetch_busybox(cache, place)
    return place


def _fetch_busybox(cache: Path, place: Path) -> None:
    suite = Suite(SUITE, cache / "apt" / "busybox")
    suite.update()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=place.parent) as scratch:
        for deb in suite.download(["busybox-static"], Path(scratch)):
            _run("dpkg-deb", "-x", deb, Path(scratch) / "files")
        program = _first(Path(scratch) / "files", "bin/busybox", "usr/bin/busybox")
        # A program with an interpreter is not static.
        if b"/ld-linux" in program.read_bytes()[:4096]:
            raise CannotBuild(f"busybox-static of {SUITE} is linked dynamically")
        program.rename(place)


def build_kernel(cache: Path, kernel: Kernel, busybox: Path, uses: ExitStack) -> KernelImage:
    """Download and prepare a kernel, unless the suite's current one is cached.

    `busybox` is for the initrd. Until `uses` is closed, no other run replaces the kernel; one that
    another run uses is not replaced by a newer one. Raises CannotBuild.
    """
    use = f"use-kernel-{kernel.name}"
    with exclusive(cache, f"kernel-{kernel.name}"):
        image = _current(cache, kernel, busybox, use)
        uses.enter_context(shared(cache, use))
    return image


def _current(cache: Path, kernel: Kernel, busybox: Path, use: str) -> KernelImage:
    suite = Suite(kernel.suite, cache / "apt" / kernel.name)
    suite.update()
    package = suite.newest(kernel.package)
    image = KernelImage(
        package.name.removeprefix("linux-image-"), package.name, package.version, _recipe()
    )
    place = KernelImage.directory(cache, kernel)
    known = _known(place)
    if known == image:
        return image
    if known and known.recipe == image.recipe and is_in_use(cache, use):
        return known
    work = place.with_name(f".{kernel.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        for deb in suite.download(suite.parts(package), work):
            _run("dpkg-deb", "-x", deb, work / "files")
        _assemble(work / "files", image.release, work / "done", busybox)
        (work / "done/kernel.json").write_text(json.dumps(asdict(image)))
        with exclusive(cache, use):
            shutil.rmtree(place, ignore_errors=True)
            (work / "done").rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return image


def _known(place: Path) -> KernelImage | None:
    try:
        return KernelImage(**json.loads((place / "kernel.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _recipe() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for script in _SCRIPTS:
        digest.update((files("graphdriver_vms") / "guest" / script).read_bytes())
    return digest.hexdigest()[:12]


def _assemble(unpacked: Path, release: str, target: Path, busybox: Path) -> None:
    target.mkdir()
    modules = _first(unpacked, f"lib/modules/{release}", f"usr/lib/modules/{release}")
    _first(unpacked, f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz").rename(
        target / "vmlinuz"
    )
    # depmod and modprobe read lib/modules of a base directory.
    _run("depmod", "-b", modules.parents[2], release)
    for name in _LISTS:
        for found in unpacked.rglob(name):
            if found.parent != modules:
                shutil.copy(found, modules / name)
    make_initrd(modules.parents[2], release, target / "initrd", busybox)


def make_initrd(base: Path | None, release: str, initrd: Path, busybox: Path) -> None:
    """Create an initrd with the modules of `base`/lib/modules/RELEASE that a guest may need.

    Without `base` it has none: the kernel has all features built in. Raises CannotBuild.
    """
    tree = initrd.with_name("tree")
    order: list[str] = []
    if base:
        modules = base / "lib/modules" / release
        wanted = tree / "lib/modules" / release
        wanted.mkdir(parents=True)
        order = _copy_modules(base, modules, wanted, release)
        for name in _LISTS:
            if (modules / name).is_file():
                shutil.copy(modules / name, wanted / name)
        _run("depmod", "-b", tree, release)
    else:
        tree.mkdir()
    (tree / "load-order").write_text("".join(f"{one}\n" for one in order))
    _pack(tree, initrd, busybox)
    shutil.rmtree(tree)


def _copy_modules(base: Path, modules: Path, target: Path, release: str) -> list[str]:
    """Copy modules and their dependencies, decompressed; return those for booting, in order."""
    boot: list[str] = []
    for name in (*_BOOT, *_REST):
        done = subprocess.run(
            ["modprobe", "-d", base, "-S", release, "--show-depends", name],
            capture_output=True,
            text=True,
            check=False,
        )
        # Modules that are built in, or missing, have no file; the guest's facts show what works.
        for line in done.stdout.splitlines():
            if not line.startswith("insmod "):
                continue
            source = Path(line.split()[1])
            inside = source.relative_to(modules)
            plain = str(inside).removesuffix(".xz").removesuffix(".zst").removesuffix(".gz")
            place = target / plain
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(_plain(source))
            if name in _BOOT or name in ("virtio_net", "af_packet", "virtio_rng"):
                boot += [plain] * (plain not in boot)
    return boot


def _plain(module: Path) -> bytes:
    if module.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", module], capture_output=True, check=True).stdout
    decompress = _DECOMPRESS[module.suffix]
    assert decompress is not None
    return decompress(module.read_bytes())


def _pack(tree: Path, initrd: Path, busybox: Path) -> None:
    for name in ("bin", "proc", "sys", "dev", "root"):
        (tree / name).mkdir()
    shutil.copy(busybox, tree / "bin/busybox")
    for script, name in _SCRIPTS.items():
        (tree / name).write_bytes((files("graphdriver_vms") / "guest" / script).read_bytes())
        (tree / name).chmod(0o755)
    names = sorted(str(one.relative_to(tree)) for one in tree.rglob("*"))
    with initrd.open("wb") as out:
        # Not compressed: under emulation unpacking takes longer than reading.
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc", "--owner=+0:+0"],
            input=os.fsencode("\n".join(names) + "\n"),
            stdout=out,
            cwd=tree,
            check=True,
        )


def _first(base: Path, *places: str) -> Path:
    for place in places:
        if (base / place).exists():
            return base / place
    raise CannotBuild(f"the kernel's packages have none of {', '.join(places)}")


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"{command[0]} failed:\n{done.stderr.strip()[-2000:]}")
