"""Run the contests, print the table, write JSON and a chart."""

import argparse
import json
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.contest import Contest
from benchmarks.contests import all_contests, peaks
from benchmarks.filesystem import enter_private_namespace, ext4_on_tmpfs

_MEMORY_AIM = 64


def main() -> int:
    """Return 0; a missed aim is a figure, not a failure."""
    options = _parse()
    enter_private_namespace()
    contests: list[Contest] = []
    with tempfile.TemporaryDirectory(prefix="graphdriver-benchmarks-") as base:
        ground, spare = ext4_on_tmpfs(Path(base))
        for contest in all_contests(ground, spare):
            if options.only not in contest.title:
                continue
            contest.hold(options.runs)
            contests.append(contest)
            print(_row(contest), flush=True)
        memory = dict(_peaks(ground, spare)) if options.only in "memory" else {}
        # The image is busy until the loop mount goes; both go before the directory can.
        _detach(ground, spare)
    if options.json:
        options.json.write_text(
            json.dumps(_as_data(contests, memory, options.runs), indent=1) + "\n"
        )
    if options.chart:
        options.chart.write_text(draw(contests))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="Measure the reference drivers."
    )
    parser.add_argument("--runs", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--only", default="", help="only contests whose title contains this")
    parser.add_argument("--json", type=Path, help="write all times here")
    parser.add_argument("--chart", type=Path, help="draw the medians here, as SVG")
    return parser.parse_args()


def _row(contest: Contest) -> str:
    aim = (
        f"< {contest.milliseconds:g} ms"
        if contest.milliseconds
        else f"{contest.ratio:g}x {contest.against}"
    )
    verdict = {True: "reached", False: "missed", None: "not measured"}[contest.reached]
    times = "  ".join(f"{one.name} {one.median * 1000:,.1f} ms" for one in contest.timings)
    ratios = "  ".join(
        f"{contest.ratio_to(one.name):.2f}x {one.name}" for one in contest.timings[1:]
    )
    return f"{contest.title}\n    {times}\n    {ratios or 'alone'}    aim {aim}: {verdict}"


def _peaks(ground: Path, spare: Path) -> Iterator[tuple[str, float]]:
    """Print and yield each verb's peak memory."""
    for title, mebibytes in peaks(ground, spare):
        verdict = "reached" if mebibytes < _MEMORY_AIM else "missed"
        print(f"memory, {title}\n    {mebibytes:.1f} MiB above idle    ", end="")
        print(f"aim < {_MEMORY_AIM} MiB: {verdict}", flush=True)
        yield title, mebibytes


def _as_data(contests: list[Contest], memory: dict[str, float], runs: int) -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "runs": runs,
        "contests": [
            {
                "title": contest.title,
                "reached": contest.reached,
                "seconds": {timing.name: timing.seconds for timing in contest.timings},
            }
            for contest in contests
        ],
        "peak_mebibytes_above_idle": memory,
    }


def _detach(*mounts: Path) -> None:
    for mount in mounts:
        subprocess.run(["umount", "--recursive", "--lazy", str(mount)], check=False)


if __name__ == "__main__":
    raise SystemExit(main())
