"""Numbers of ioctls and system calls are those in the headers of each architecture."""

import pytest

from graphdriver.linux.architecture import ioctl_read, ioctl_write, syscall_number


@pytest.mark.parametrize(
    ("machine", "fsgetxattr", "fssetxattr", "ficlone"),
    [
        ("x86_64", 0x801C581F, 0x401C5820, 0x40049409),
        ("aarch64", 0x801C581F, 0x401C5820, 0x40049409),
        ("s390x", 0x801C581F, 0x401C5820, 0x40049409),
        ("ppc64le", 0x401C581F, 0x801C5820, 0x80049409),
        ("mips64", 0x401C581F, 0x801C5820, 0x80049409),
    ],
)
def test_ioctls(machine: str, fsgetxattr: int, fssetxattr: int, ficlone: int) -> None:
    assert fsgetxattr == ioctl_read("X", 31, 28, machine)
    assert fssetxattr == ioctl_write("X", 32, 28, machine)
    assert ficlone == ioctl_write(0x94, 9, 4, machine)


@pytest.mark.parametrize(
    ("machine", "word", "openat2"),
    [
        ("x86_64", 8, 437),
        ("s390x", 8, 437),
        ("alpha", 8, 547),
        ("mips64", 8, 5437),
        ("mips", 4, 4437),
    ],
)
def test_system_calls(machine: str, word: int, openat2: int) -> None:
    assert openat2 == syscall_number(437, machine, word)
