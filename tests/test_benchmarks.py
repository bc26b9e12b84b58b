"""The benchmarks measure, evaluate and report; no test asserts a time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart, page
from benchmarks.comparison import Aim, Candidate, Comparison, Row, Verdict
from benchmarks.machine import Evenness, Watch
from benchmarks.result import Axis, Result, read, write

ROOT = Path(__file__).parents[1]
AIM = Aim("overlay2", "GNU tar", 1.25)


def _row(ours: float, *aims: Aim) -> Row:
    return Row("apply", {"overlay2": (ours, ours, ours), "GNU tar": (1.0, 1.0, 1.0)}, aims)


def _result(*rows: Row) -> Result:
    axis = Axis("Layers in the home", "layers", (10, 100), {"Init, overlay2": (0.01, 0.02)})
    memory = {"diff": 3.5, "apply": 9.5}
    return Result({"Linux": "6.18"}, 3, Evenness(1.02, 1.01), rows, (axis,), memory)


@pytest.mark.parametrize(
    ("ours", "aim", "verdict"),
    [
        (1.2, AIM, Verdict.MET),
        (1.3, AIM, Verdict.MISSED),
        (1.3, Aim("overlay2", "Docker", 1.0), Verdict.NOT_MEASURED),
        (0.1, Aim("overlay2", milliseconds=150), Verdict.MET),
        (0.2, Aim("overlay2", milliseconds=150), Verdict.MISSED),
        (0.2, Aim("Docker", milliseconds=150), Verdict.NOT_MEASURED),
    ],
)
def test_verdict_of_an_aim(ours: float, aim: Aim, verdict: Verdict) -> None:
    assert _row(ours).verdict(aim) is verdict


def test_ratio_is_of_rounds_with_its_quartiles() -> None:
    row = Row("w", {"a": (1.0, 2.0, 3.0, 4.0, 50.0), "b": (1.0, 1.0, 1.0, 1.0, 10.0)})

    assert str(row.ratio("a", "b")) == "3.00x (2.00 to 4.00)"


def test_each_round_is_begun_by_another_candidate() -> None:
    order: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        order.append("before")
        yield

    candidates = [Candidate(name, partial(order.append, name)) for name in "ab"]
    candidates.append(Candidate("c", lambda: 7.0, around))

    row = Comparison("w", candidates).measure(3, Watch())

    assert "".join(order).replace("before", "c") == "abc" + "bca" + "cab" + "abc"
    assert {name: len(times) for name, times in row.seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert row.seconds["c"] == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("evenness", "word"),
    [
        (Evenness(1.02, 1.01), "even:"),
        (Evenness(1.4, 1.01), "too uneven to count"),
        (Evenness(1.02, 2.0), "too uneven to count"),
    ],
)
def test_machine_of_varying_speed_is_reported(evenness: Evenness, word: str) -> None:
    assert str(evenness).startswith(word)


def test_page_is_made_of_the_result_file_alone(tmp_path: Path) -> None:
    result = _result(_row(1.2, AIM), _row(1.3, AIM), Row("root", {}, reason="no mirror"))
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    write(result, tmp_path / "result.json")

    page.update(read(tmp_path / "result.json"), document)

    text = document.read_text()
    assert read(tmp_path / "result.json") == result
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert [
        *("met", "missed", "not measured", "met", "missed"),
    ] == [line.split("|")[-2].strip() for line in text.splitlines() if line[:1] == "|"][2:]
    for name in ("performance.svg", "performance-layers.svg"):
        assert f"({name})" in text
        ElementTree.parse(tmp_path / name)


def test_chart_of_an_axis_has_a_point_for_each_time() -> None:
    root = ElementTree.fromstring(chart.lines(_result().axes[0]))

    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 2


def test_performance_page_can_be_updated(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "performance.md", tmp_path)

    page.update(_result(_row(1.2, AIM)), tmp_path / "performance.md")

    assert "1.20x (1.20 to 1.20)" in (tmp_path / "performance.md").read_text()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: a loop mount")
@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="mkfs.ext4 is not installed")
@pytest.mark.parametrize("group", ["cycle", "layers"])
def test_each_group_runs_with_minimal_work(tmp_path: Path, group: str) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--small", "--rounds", "2", "--only", group]

    done = subprocess.run(
        [*command, "--json", result], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    found = read(result)
    assert found.rows
    assert all(len(row.seconds["overlay2"]) == 2 for row in found.rows)
    assert (group == "layers") == ("layers" in [axis.unit for axis in found.axes])
    assert "graphdriver-benchmarks" not in Path("/proc/self/mountinfo").read_text()
