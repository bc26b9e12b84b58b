"""The table of system calls is compared with the kernel headers, where these are installed."""

import re
from pathlib import Path

import pytest

from graphdriver_conformance.faults import calls

# Newer system calls, from this number on, have the same number on all architectures, and may be
# missing in the headers.
_FIRST_SHARED = 424
_HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
# The generic header, which the other architectures use, has an older name for this call.
_GENERIC_NAMES = {"newfstatat": "fstatat"}


@pytest.mark.parametrize("machine", _HEADERS)
def test_numbers_are_those_of_the_headers(machine: str) -> None:
    header = Path(_HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    rows = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    known = {name: int(number) for name, number in rows}

    wrong = {
        row.name: (getattr(row, machine), number)
        for row in calls._TABLE
        for number in [known.get(row.name, known.get(_GENERIC_NAMES.get(row.name, ""), -1))]
        if getattr(row, machine) != number and not (number < 0 and row.x86_64 > _FIRST_SHARED)
    }

    assert wrong == {}


def test_no_number_stands_twice() -> None:
    for machine in _HEADERS:
        numbers = [getattr(row, machine) for row in calls._TABLE if getattr(row, machine) >= 0]

        assert len(set(numbers)) == len(numbers)
