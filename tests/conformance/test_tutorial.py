"""docs/tutorial.md, step by step: each command is run, each file and patch is applied."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FEW = "--graphdriver-requirement=KRN --graphdriver-requirement=LIF-02"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the tutorial is followed as root")


class Reader:
    """A reader of the page in a directory; `printed` is the output of each command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.printed: list[str] = []

    def follow(self, language: str, title: str, text: str) -> None:
        """Execute a block of the page; blocks without a language are output to compare with."""
        if language == "console":
            for command in text.splitlines():
                self._run(shlex.split(command.removeprefix("$ ")))
        elif language == "python":
            (self.directory / title).write_text(text)
        elif language == "diff":
            patch = ["patch", "-p0", "--fuzz=0"]
            subprocess.run(patch, cwd=self.directory, input=text, text=True, check=True)
        else:
            self._compare(text)

    def _run(self, command: list[str]) -> None:
        if command[0] == "cd":
            self.directory /= command[1]
            return
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path}
        # The whole suite runs once, at the end; earlier runs are limited to the families of the
        # page.
        is_whole = command[0] == "pytest" and not any("requirement" in word for word in command)
        if is_whole and "user_xattrs" not in (self.directory / "mydriver/driver.py").read_text():
            environment["PYTEST_ADDOPTS"] = FEW
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        self.printed.append(done.stdout)

    def _compare(self, shown: str) -> None:
        for line in shown.splitlines():
            # "..." marks an omission on the page, and figures depend on the selected tests.
            start = re.split(r"\.\.\.|\(all|\(in the", line)[0].rstrip()
            if not start.startswith("works although"):
                assert start in self.printed[-1]


def test_tutorial_ends_with_a_conformant_driver(tmp_path: Path) -> None:
    reader = Reader(tmp_path)

    for language, title, text in BLOCK.findall(TUTORIAL.read_text("utf-8")):
        reader.follow(language, title, text)

    verdicts = [re.findall(r": (NOT CONFORMANT|CONFORMANT) ", text) for text in reader.printed[1:]]
    assert verdicts == [
        ["NOT CONFORMANT"],
        ["CONFORMANT"],
        ["NOT CONFORMANT"],
        ["CONFORMANT"],
        ["CONFORMANT"],
    ]
