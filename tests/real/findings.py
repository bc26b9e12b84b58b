"""Findings in third-party drivers, each reproduced by a script independent of this project.

    python -m tests.real.findings                    run all in all versions; write docs/findings
    python -m tests.real.findings --check NAME ...   run these; compare with the recorded output

A script of docs/findings prints the expected and the actual behaviour. It runs in its own mount
namespace, with the programs of one Debian suite after the other.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .suites import SUITES, Suite

__all__ = ["FINDINGS", "Finding", "pages"]

_DIRECTORY = Path(__file__).parents[2] / "docs" / "findings"
_RESULTS = _DIRECTORY / "results.json"
_NEWER = SUITES[1:]
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # the beginning of a script's name: packages, programs, and the suites that contain them
    "docker-fuse": (
        ("golang-github-docker-docker-dev", "fuse-overlayfs"),
        ("fuse-overlayfs",),
        SUITES,
    ),
    "containers": (("containers-storage",), ("containers-storage",), SUITES),
    "containerd": (("containerd",), ("containerd", "ctr"), _NEWER),  # blockfile exists since 1.7
    "docker": (("golang-github-docker-docker-dev",), (), SUITES),
    "fuse": (("fuse-overlayfs",), ("fuse-overlayfs",), SUITES),
    "nydus": (
        ("nydus-snapshotter", "containerd"),
        ("containerd-nydus-grpc", "containerd", "ctr"),
        _NEWER,
    ),
}
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Finding:
    """One script, and the page beside it."""

    name: str

    @property
    def script(self) -> Path:
        """Return the script."""
        return _DIRECTORY / f"{self.name}.sh"

    @property
    def page(self) -> Path:
        """Return the page."""
        return _DIRECTORY / f"{self.name}.md"

    @property
    def title(self) -> str:
        """Return the page's title."""
        return self.page.read_text().partition("\n")[0].removeprefix("# ")

    @property
    def suites(self) -> tuple[str, ...]:
        """Return the suites that contain the programs of the script."""
        return self._kind[2]

    @property
    def _kind(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        return next(kind for name, kind in _KINDS.items() if self.name.startswith(f"{name}-"))

    def run(self, suite: Suite) -> dict[str, str]:
        """Run it with the programs of a suite; return version, expected and actual."""
        packages, programs, _ = self._kind
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        if packages[0].startswith("golang"):
            path = f"{suite.docker(_DIRECTORY / 'gd.go').parent}:{path}"
        if programs and (found := suite.provide(programs, packages)):
            path = f"{found}:{path}"
        with tempfile.TemporaryDirectory(prefix="finding-") as scratch:
            done = subprocess.run(
                ["unshare", "--mount", "sh", self.script],
                env={**os.environ, "PATH": path, "TMPDIR": scratch, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
            printed = re.sub(rf"{re.escape(scratch)}/tmp\.\w+/", "", done.stdout)
        rows = dict(re.findall(r"^(expected|actual): *(.*)$", printed, re.MULTILINE))
        if set(rows) != {"expected", "actual"}:
            raise SystemExit(f"{self.name}, {suite.name}: {done.stdout}{done.stderr}")
        versions = ", ".join(f"{package} {suite.version(package)}" for package in packages)
        return {"version": versions, **rows}


FINDINGS = {path.stem: Finding(path.stem) for path in sorted(_DIRECTORY.glob("*.sh"))}

_Results = dict[str, dict[str, dict[str, str]]]


def main() -> int:
    """Run scripts; return 1 if one prints other output than the recorded one."""
    parser = argparse.ArgumentParser("python -m tests.real.findings")
    parser.add_argument("name", nargs="*", help="default: all")
    parser.add_argument("--suite", action="append", choices=SUITES, help="default: all")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    parser.add_argument("--pages", action="store_true", help="write the pages again, run nothing")
    options = parser.parse_args()
    if unknown := set(options.name) - set(FINDINGS):
        parser.error(f"no such finding: {', '.join(sorted(unknown))}")
    recorded: _Results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    differs = False
    for name in [] if options.pages else options.name or FINDINGS:
        finding = FINDINGS[name]
        for suite in options.suite or finding.suites:
            if suite not in finding.suites:
                continue
            found = finding.run(Suite(suite))
            print(f"{name}, {found['version']}: {_verdict(found)}: {found['actual']}", flush=True)
            differs |= found != recorded.get(name, {}).get(suite)
            recorded.setdefault(name, {})[suite] = found
    if options.check:
        return int(differs)
    _RESULTS.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    for path, text in pages(recorded).items():
        path.write_text(text)
    return 0


def pages(recorded: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[Path, str]:
    """Return each page, and the index, with the recorded output in its blocks."""
    made = {}
    for name, finding in FINDINGS.items():
        text = finding.page.read_text()
        text = _replaced(text, "versions", _versions(finding, recorded.get(name, {})))
        made[finding.page] = _replaced(
            text, "script", ["```sh", *finding.script.read_text().splitlines(), "```"]
        )
    index = _DIRECTORY / "README.md"
    made[index] = _replaced(index.read_text(), "index", _index(recorded))
    return made


def _replaced(text: str, name: str, lines: list[str]) -> str:
    before, mark, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not end:
        raise ValueError(f"a page has no block {name}")
    return before + mark + "\n".join(lines) + "\n" + end + after


def _versions(finding: Finding, rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = ["| Debian | version | expected | actual | |", "|---|---|---|---|---|"]
    for suite in finding.suites:
        if row := rows.get(suite):
            cells = [suite, row["version"], row["expected"], row["actual"], _verdict(row)]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _index(recorded: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    lines = []
    for suite in SUITES:
        rows = (found[suite]["version"] for found in recorded.values() if suite in found)
        packages = sorted({package for row in rows for package in row.split(", ")})
        lines.append(f"* {suite}: {', '.join(packages)}")
    lines += ["", f"| finding | {' | '.join(SUITES)} |", f"|---|{'---|' * len(SUITES)}"]
    for name, finding in FINDINGS.items():
        lines.append(f"| [{finding.title}]({name}.md) | {' | '.join(_cells(recorded, name))} |")
    return lines


def _cells(recorded: Mapping[str, Mapping[str, Mapping[str, str]]], name: str) -> Iterator[str]:
    for suite in SUITES:
        row = recorded.get(name, {}).get(suite)
        yield f"{_verdict(row)}" if row else ""


def _verdict(row: Mapping[str, str]) -> str:
    return "right" if row["expected"] == row["actual"] else "wrong"


if __name__ == "__main__":
    sys.exit(main())
