"""A kernel of the user's own: its file format, its modules, and the comparison with a base."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from graphdriver_vms import cli, own_run
from graphdriver_vms.errors import CannotBuild, NotBooted
from graphdriver_vms.images import own
from graphdriver_vms.images.own import KernelFormat, own_kernel
from graphdriver_vms.machines.engine import EngineName, Task
from graphdriver_vms.own_run import BAD, CANNOT_TEST, GOOD, STOP, compared, engine_of
from graphdriver_vms.results.judge import Row, read_row, write_row


def _bzimage(path: Path, release: str) -> Path:
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = struct.pack("<H", 0x800 - 0x200)
    text = f"{release} (me@here) #1 SMP".encode() + b"\0"
    head[0x800 : 0x800 + len(text)] = text
    path.write_bytes(head)
    return path


def _uml(path: Path, release: str) -> Path:
    path.write_text(f"#!/bin/sh\necho {release}\n")
    path.chmod(0o755)
    return path


def test_bzimage_says_its_release(tmp_path: Path) -> None:
    file = _bzimage(tmp_path / "bzImage", "6.1.9-me+")

    kernel = own_kernel(file, None, tmp_path)

    assert (
        kernel.format,
        kernel.release,
        kernel.modules_base,
    ) == (KernelFormat.BZIMAGE, "6.1.9-me+", ())
    assert EngineName.QEMU is engine_of(file)


def test_linux_of_um_is_asked_for_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "_ELF", b"#!/bin/sh")

    kernel = own_kernel(_uml(tmp_path / "linux", "6.1.9"), None, tmp_path)

    assert (kernel.format, kernel.release) == (KernelFormat.UML, "6.1.9")


@pytest.mark.parametrize("place", ["", "lib/modules/6.1.9", "6.1.9"])
def test_modules_are_found_where_make_installs_them(tmp_path: Path, place: str) -> None:
    given = tmp_path / "given"
    (given / place / "kernel").mkdir(parents=True)
    (given / place / "modules.dep").touch()
    (given / place / "build").symlink_to("/nonexistent")

    kernel = own_kernel(_bzimage(tmp_path / "bzImage", "6.1.9"), given, tmp_path / "scratch")

    (base,) = kernel.modules_base
    assert (base / "lib/modules/6.1.9/modules.dep").is_file()
    assert not (base / "lib/modules/6.1.9/build").is_symlink()


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_file_that_is_not_a_kernel_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(CannotBuild, match="name a bzImage"):
        own_kernel(file, None, tmp_path)


def test_modules_of_another_release_are_refused(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()

    with pytest.raises(CannotBuild, match=r"no modules of 6\.1\.9"):
        own_kernel(_bzimage(tmp_path / "bzImage", "6.1.9"), tmp_path / "given", tmp_path / "s")


def _result(outcomes: dict[str, str]) -> dict[str, object]:
    source = Path(__file__).parent / "results/schema2.json"
    data = json.loads(source.read_text())
    template = next(one for one in data["requirements"] if one["outcome"] == "met")
    data["requirements"] = [
        {**template, "id": id, "outcome": outcome, "reason": None if outcome == "met" else "raised"}
        for id, outcome in outcomes.items()
    ]
    data["driver"]["init_error"] = None
    is_met = set(outcomes.values()) == {"met"}
    data["verdict"] = "conformant" if is_met else "not-conformant"
    return dict(data)


def _row(directory: Path, outcomes: dict[str, str]) -> Row:
    record = {
        "name": "ext4",
        "driver": "overlay2",
        "expect": "conformant",
        "requires": "",
        "exit": 0,
        "problem": "",
        "left": [],
        "seconds": 1.0,
    }
    write_row(directory, Row(directory.name, "6.1.9"))
    (directory / "cells.json").write_text(json.dumps([record]))
    (directory / "ext4.json").write_text(json.dumps(_result(outcomes)))
    return read_row(directory)


BEFORE = {"LIF-001": "met", "LIF-002": "violated"}


@pytest.mark.parametrize(
    ("after", "is_worse"),
    [
        (BEFORE, False),
        ({"LIF-001": "met", "LIF-002": "met"}, False),
        ({"LIF-001": "violated", "LIF-002": "violated"}, True),
    ],
)
def test_only_new_violations_are_worse(
    tmp_path: Path, after: dict[str, str], is_worse: bool
) -> None:
    _row(tmp_path / "base", BEFORE)
    row = _row(tmp_path / "own", after)

    assert is_worse is compared(tmp_path / "base", row, tmp_path / "own").is_worse


class _Engine:
    """Writes a result, or fails to boot."""

    def __init__(self, outcomes: dict[str, str] | None) -> None:
        self._outcomes = outcomes

    def run_task(self, task: Task) -> str:
        if self._outcomes is None:
            raise NotBooted("own: did not boot: panic")
        _row(task.directory, self._outcomes)
        return "6.1.9"

    def interrupt(self) -> None:
        pass


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [({"LIF-001": "met"}, GOOD), ({"LIF-001": "violated"}, BAD), (None, CANNOT_TEST)],
)
def test_exit_code_is_one_for_git_bisect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: dict[str, str] | None,
    code: int,
) -> None:
    monkeypatch.setattr(cli, "prepared", lambda *_: _Engine(outcomes))
    monkeypatch.setattr(cli, "findings", lambda *_, **__: iter(()))
    file = _bzimage(tmp_path / "bzImage", "6.1.9")

    assert (
        cli.main(
            [
                *("run", f"--kernel-image={file}", "--cell=ext4"),
                *(f"--cache={tmp_path}/c", f"--out={tmp_path}/out"),
            ]
        )
        == code
    )


def test_unavailable_kernel_stops_git_bisect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every code above 127 stops it: 1 would mark the commit as bad, 125 would skip all commits."""
    monkeypatch.setattr(own_run, "static_busybox", shutil.which)
    monkeypatch.setattr(cli, "findings", lambda *_, **__: iter(()))

    code = cli.main(
        ["run", f"--kernel-image={tmp_path}/nope", f"--cache={tmp_path}/c", f"--out={tmp_path}/out"]
    )

    assert STOP == code > 127
