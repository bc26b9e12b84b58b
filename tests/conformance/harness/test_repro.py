"""Scripts of violations: they reproduce on the broken driver, and not on the correct one."""

import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver_conformance.repro.edits import edits_between
from graphdriver_conformance.repro.observe import scan
from graphdriver_mutants import MUTANTS

NO_DIFF = """
import io
from graphdriver.vfs import Driver
class NoDiff(Driver):
    def diff(self, id, parent=""):
        return io.BytesIO() if self.exists(id) and parent == "nope" else super().diff(id, parent)
"""
ONCE = """
from pathlib import Path
from graphdriver.vfs import Driver
class Once(Driver):
    def exists(self, id):
        if not Path("used").exists():
            Path("used").touch()
            return not super().exists(id)
        return super().exists(id)
"""
ONLY_BELOW = """
from graphdriver.vfs import Driver
class OnlyBelow(Driver):
    def exists(self, id):
        return super().exists(id) != str(self.home).startswith({!r})
"""


def _judged(spec: str, id: str, directory: Path, *more: str) -> str:
    command = [sys.executable, "-m", "pytest", f"--driver={spec}", f"--requirement={id}", "-q"]
    command += ["-p", "no:xdist", "-p", "no:cacheprovider", "--graphdriver-profile=quick"]
    command += ["--tb=no", f"--graphdriver-repro={directory / 'scripts'}", *more]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("OpaqueDropped", "DIF-002"),  # apply_diff of an exported archive, a recreated directory
        ("WhiteoutsMissing", "DIF-003"),  # the minimal example of a property
        ("UnknownDiffIsEmpty", "DIF-008"),  # a missing error
        ("RemovesThroughMount", "LIF-020"),  # the content of a view afterwards
        ("LinkLeaked", "LIF-008"),  # files left in the home
        ("MountLeaked", "MNT-004"),  # mounts left behind
        ("ModesNotCompared", "CHG-010"),  # an edit of metadata only
        ("LayersForgotten", "LIF-023"),  # a second driver on the same home
        ("CountsWithoutLock", "CON-003"),  # threads
        ("DescriptorsLeaked", "CLN-005"),  # the process of the driver itself
        ("MountsSoughtByGivenPath", "INI-014"),  # a home given by another path
        ("OtherBytesEachTime", "DIF-006"),  # output that differs each time
        ("NameChanges", "INI-001"),  # a call that is not a verb
        ("KernelNotChecked", "INI-004"),  # a thread with a modified view of the host
        ("CreatesInPlace", "CRS-005"),  # a kill inside a verb
        ("HidesTheCause", "CRS-044"),  # an error of one system call
    ],
)
def test_script_reproduces_on_the_broken_driver_only(name: str, id: str, tmp_path: Path) -> None:
    output = _judged(f"graphdriver_mutants:{name}", id, tmp_path)
    script = tmp_path / "scripts" / f"{id}.py"

    assert f"script:    python {script}\n" in output
    broken, correct = _run(script), _run(script, getattr(MUTANTS[name], "wrapped_name", "overlay2"))

    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "expected:" in broken.stdout
    assert "actual:" in broken.stdout
    assert correct.returncode == 0, correct.stdout + correct.stderr
    assert "not reproduced" in correct.stdout


def test_script_needs_neither_pytest_nor_the_suite(tmp_path: Path) -> None:
    _judged("graphdriver_mutants:LinkLeaked", "LIF-008", tmp_path)
    text = (tmp_path / "scripts" / "LIF-008.py").read_text()

    imports = [
        line.strip() for line in text.splitlines() if line.strip()[:7] in ("import ", "from gr")
    ]
    ours = [line for line in imports if "graphdriver" in line]
    assert [line.partition("  ")[2] for line in ours] == ["# an adapter of the suite"]
    assert not any("pytest" in line or "hypothesis" in line for line in imports)


def test_violation_without_verbs_is_a_call_of_the_check(tmp_path: Path) -> None:
    _judged("graphdriver_mutants:LinkLeaked", "LIF-008", tmp_path)
    _judged("graphdriver_mutants:DescriptorsLeaked", "CLN-005", tmp_path)
    replayed, called = (
        (tmp_path / "scripts" / f"{id}.py").read_text() for id in ("LIF-008", "CLN-005")
    )

    assert "def program(run):" in replayed
    assert "'graphdriver_conformance.suite.test_cleanup_leaks:" in called


def test_script_makes_one_fault_of_the_many_that_were_tried(tmp_path: Path) -> None:
    output = _judged("graphdriver_mutants:RemovesInPlace", "CRS-007", tmp_path)
    script = tmp_path / "scripts" / "CRS-007.py"
    broken = _run(script)

    assert "fault=('remove_child', 'kill', " in script.read_text()
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "broken at 1 of 2 points that were tried" in broken.stdout
    assert "killed before its" in output


@pytest.mark.parametrize(
    ("case", "output"),
    [(0, "NoDiff: not reproduced: DIF-008 is met"), (2, "NoDiff: reproduced")],
)
def test_check_is_called_for_the_case_that_failed(case: int, output: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NO_DIFF)
    check = "graphdriver_conformance.suite.test_diff:test_diff_of_unknown_layers_is_an_error"
    arguments = ["mine:NoDiff", "DIF-008", check, {"id": case, "parent": case}]
    code = f"from graphdriver_conformance.repro.rerun import main; main(*{arguments!r})"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert output in done.stdout


def test_script_that_does_not_reproduce_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ONCE)

    output = _judged("mine:Once", "LIF-001", tmp_path)

    assert "LIF-001.py  (did not reproduce it by itself)" in output


def test_scripts_run_on_the_file_system_of_the_homes(tmp_path: Path) -> None:
    homes = tmp_path / "homes of mine"
    homes.mkdir()
    (tmp_path / "mine.py").write_text(ONLY_BELOW.format(str(homes)))

    output = _judged("mine:OnlyBelow", "LIF-001", tmp_path, f"--graphdriver-home={homes}")

    assert f"script:    TMPDIR='{homes}' python {tmp_path}/scripts/LIF-001.py\n" in output


def test_correct_driver_gets_no_scripts(tmp_path: Path) -> None:
    _judged("vfs", "LIF-001", tmp_path)

    assert list((tmp_path / "scripts").iterdir()) == []


def test_edits_contain_renames_and_recreated_directories(tmp_path: Path) -> None:
    for name in ("moved", "again", "gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    before = scan(tmp_path)
    (tmp_path / "moved").rename(tmp_path / "new")
    (tmp_path / "again" / "file").unlink()
    (tmp_path / "again").rmdir()
    (tmp_path / "other").touch()  # prevents reuse of the inode number
    (tmp_path / "again").mkdir()
    (tmp_path / "gone" / "file").write_bytes(b"y")

    edits = [(name, arguments) for name, arguments, _ in edits_between(before, scan(tmp_path))]

    assert ("rename", (b"moved", b"new")) in edits
    assert ("write", (b"gone/file", b"y")) in edits
    assert not any(arguments[0] == b"new/file" for _, arguments in edits)
    assert ("remove", (b"again",)) in edits or ("remove", (b"again/file",)) in edits
