"""`graphdriver matrix` on the command line, as far as no machine is needed."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver_vms.cli import cells_of, main
from graphdriver_vms.progress import Progress
from graphdriver_vms.results.judge import Row, write_row


def _matrix(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graphdriver_conformance", "matrix", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **({"PATH": path} if path else {})},
    )


def test_the_graphdriver_command_passes_matrix_on() -> None:
    done = _matrix("list")

    assert (done.returncode, done.stderr) == (0, "")
    assert "bullseye-security linux-image-5.10.0-*-cloud-amd64" in done.stdout


def test_unsupported_host_gets_all_missing_prerequisites_and_code_3(tmp_path: Path) -> None:
    doctor = _matrix("doctor", f"--cache={tmp_path}", path=str(tmp_path))
    run = _matrix("run", "5.10", f"--cache={tmp_path}", f"--out={tmp_path}/out", path=str(tmp_path))

    assert (doctor.returncode, run.returncode) == (3, 3)
    for words in ("apt-get install mmdebstrap", "apt-get install rsync"):
        assert words in doctor.stdout
        assert words in run.stderr
    (line,) = (one for one in doctor.stdout.splitlines() if "--no-install-recommends" in one)
    assert line in run.stderr.splitlines()
    assert {"mmdebstrap", "rsync"} <= set(line.split())
    assert os.listdir(tmp_path) == [], "nothing was begun"


def test_run_with_unavailable_kernels_only_does_not_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")

    code = main(["run", "7.3", f"--cache={tmp_path}/cache", f"--out={tmp_path}/out"])

    output = capsys.readouterr().out
    assert code == 2
    assert "7.3: not run: 7.3 has no public box in kernels.toml" in output
    assert "0 kernels ran; not run: 7.3" in output


@pytest.mark.parametrize("arguments", [["run", "9.9"], ["run", "--cell=nope"], ["report", "/nope"]])
def test_unknown_names_are_reported(arguments: list[str]) -> None:
    done = _matrix(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("graphdriver matrix: ")


def test_clean_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "boxes").mkdir(parents=True)

    assert main(["clean", f"--cache={cache}"]) == 0
    assert not cache.exists()


def test_a_run_replaces_its_own_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels that an interrupted run did not reach can be run later."""
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")
    out = tmp_path / "out"
    for name in ("6.1", "7.3"):
        write_row(out / name, Row(name, problem="earlier"))
        (out / name / "cells.json").write_text("[]")

    main(["run", "7.3", f"--cache={tmp_path}/cache", f"--out={out}"])

    assert os.listdir(out / "7.3") == ["row.json"]
    assert sorted(os.listdir(out / "6.1")) == ["cells.json", "row.json"]
    assert "earlier" in (out / "report.html").read_text()


def test_rows_of_another_process_are_not_counted_as_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The machines run in another process, the row of the host in this one."""
    progress = Progress(["5.10", "7.3", "host"])

    progress.remove(["5.10", "7.3"])
    progress.done("host", "1 met")

    assert "left" not in capsys.readouterr().out


def test_shards_of_a_run_are_joined_by_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # These kernels are not available on VirtualBox, so their rows need no machine.
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")
    shares = [tmp_path / str(index) for index in (1, 2, 3)]
    for index, out in enumerate(shares, 1):
        arguments = ["7.3", "6.18", f"--shard={index}/3", f"--out={out}", f"--cache={tmp_path}/c"]
        # The third has no kernel: this is not a failure, unlike kernels that cannot be run.
        assert main(["run", *arguments]) == (0 if index == 3 else 2)

    rows = [sorted(path.name for path in out.glob("*") if path.is_dir()) for out in shares]
    assert rows == [["6.18"], ["7.3"], []]
    capsys.readouterr()
    main(["report", *map(str, shares[:2])])
    assert "not run: 6.18, 7.3" in capsys.readouterr().out
    assert main(["report", str(shares[0]), str(shares[0])]) == 2
    assert f"6.18 is in {shares[0]} and in {shares[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0/2", "3/2", "x", "1/"])
def test_malformed_shard_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        main(["run", f"--shard={text}"])


def test_requirements_replace_those_of_cells_that_are_to_be_conformant() -> None:
    options = argparse.Namespace(cell=["ext4", "xfs-ftype0"], requirement=["wht-006"])

    chosen = {cell.name: cell.requirements for cell in cells_of(options)}

    assert chosen == {"ext4": ["WHT-006"], "xfs-ftype0": []}
