"""Duration of the conformance suite on overlay2."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.comparison import Aim, Candidate, Comparison
from benchmarks.workspace import Record, Workspace

__all__ = ["suite"]

# A run is long enough for three to be sufficient.
_ROUNDS = 3


def suite(workspace: Workspace, record: Record) -> None:
    """The quick profile on tmpfs, and the default one on ext4."""
    for profile, home, seconds in (
        ("quick", workspace.spare / "suite", 8),
        ("default", workspace.place / "suite", 45),
    ):
        home.mkdir()
        name = f"-n2, {profile} profile"
        candidate = Candidate(name, partial(_check, profile, home))
        aims = (Aim(name, milliseconds=seconds * 1000),)
        where = "in memory" if profile == "quick" else "on ext4"
        record.measure(Comparison(f"the suite, {where}", (candidate,), aims), _ROUNDS)


def _check(profile: str, home: Path) -> None:
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-n2", "--driver=overlay2"),
        *(f"--graphdriver-profile={profile}", f"--graphdriver-home={home}"),
    ]
    with tempfile.TemporaryDirectory(dir=home.parent) as directory:
        environment = os.environ | {"TMPDIR": directory}
        subprocess.run(
            command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=True
        )
