"""Files and commands that the documents name exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.name))
def test_relative_links_have_targets(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())

    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_readme_opens_with_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv .*$", text, re.MULTILINE)

    assert len(commands) == 2, "one line for the main job, one for all tests"
    assert commands[0].endswith("graphdriver check")
    assert commands[1].endswith("tox")


def test_gate_script_parses() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)
