"""Drivers that kill their process, exit, hang or return garbage are violated, with a reason.

The rest of the run continues, and no files or processes are left.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance import check
from graphdriver_conformance.results.model import Ended, Outcome, Reason, Verdict
from graphdriver_conformance.results.result_file import read_results
from graphdriver_conformance.session.library import CheckFailed

pytest_plugins = ["pytester"]

DRIVERS = """
import os, signal, sys, threading, time, warnings
import pytest
from graphdriver.errors import DriverError
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver

class Segfault(Driver):
    def exists(self, id): os.kill(os.getpid(), signal.SIGSEGV)

class Exit(Driver):
    def exists(self, id): os._exit(3)

class SysExit(Driver):
    def exists(self, id): sys.exit(4)

class Hang(Driver):
    def exists(self, id): threading.Event().wait()

class HangInStream(Driver):
    def diff(self, id, parent=""):
        class Stream:
            def read(self, count=-1): threading.Event().wait()
            def close(self): pass
            def __enter__(self): return self
            def __exit__(self, *_): self.close()
        return Stream()

class GroupKilled(Driver):
    def exists(self, id): os.killpg(0, signal.SIGKILL)

class NoPath(Driver):
    def get(self, id, mount_label=""): super().get(id, mount_label)

class Bytes(Driver):
    def diff(self, id, parent=""): return super().diff(id, parent).read()

class Text(Driver):
    def exists(self, id): return "yes"

class WrongClass(Driver):
    def create(self, id, parent="", mount_label="", storage_opt=None):
        if parent and not self.exists(parent):
            raise ValueError("no such parent")
        super().create(id, parent, mount_label, storage_opt)
    create_read_write = create

class WrongClassOfInit(Overlay2):
    def __init__(self, home, options=(), uid_maps=(), gid_maps=()):
        try:
            super().__init__(home, options, uid_maps, gid_maps)
        except DriverError as error:
            raise ValueError("no such option") from error

class WrongClassOfIds(Driver):
    def exists(self, id):
        if "/" in id:
            raise ValueError("no such id")
        return super().exists(id)

class OwnWarning(UserWarning):
    pass

class Warns(Driver):
    def exists(self, id):
        warnings.warn("exists is deprecated", DeprecationWarning)
        warnings.warn("this driver is slow", OwnWarning)
        return super().exists(id)

class NeverEnds(Driver):
    def get(self, id, mount_label=""):
        threading.Thread(target=threading.Event().wait).start()
        return super().get(id, mount_label)

class Skips(Driver):
    def exists(self, id): pytest.skip("nothing to see here")

class Exits(Driver):
    def exists(self, id): pytest.exit("enough", 0)

class Interrupts(Driver):
    def exists(self, id): raise KeyboardInterrupt

class ForksInBoth(Driver):
    def exists(self, id):
        if not getattr(self, "forked", False):
            self.forked = True
            os.fork()
        return super().exists(id)

class FrozenTime(Driver):
    def exists(self, id):
        if time.monotonic_ns() == 0: threading.Event().wait()
        time.monotonic_ns = lambda: 0
        return super().exists(id)

class ClaimsLess(Driver):
    @property
    def capabilities(self):
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        return frozenset() if "test_lifecycle" in test else None

class ClaimsRaise(Driver):
    @property
    def capabilities(self): raise RuntimeError("not now")

class NoLimit(Driver):
    layer_limit = None

class ParentKilled(Driver):
    def exists(self, id):
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()
"""
DEADLINE = "--graphdriver-deadline=20"


@pytest.fixture
def directory(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the directory of the drivers; the test fails if runs leave files in TMPDIR."""
    pytester.makepyfile(bad=DRIVERS)
    place = pytester.path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{os.environ.get('PYTHONPATH', '')}")
    yield pytester.path
    assert [one.name for one in place.iterdir() if one.name.startswith("graphdriver")] == []


def _rows(pytester: pytest.Pytester, name: str, *more: str) -> dict[str, dict[str, Any]]:
    done = pytester.runpytest_subprocess(
        f"--driver=bad:{name}", "--requirement=LIF-001", "--requirement=LIF-014",
        "--graphdriver-report=r.json", "--graphdriver-profile=quick", "-p", "no:cacheprovider",
        *more,
    )  # fmt: skip
    assert done.ret == 1, done.stdout.str() + done.stderr.str()
    assert "Traceback" not in done.stdout.str() + done.stderr.str()
    data = json.loads((pytester.path / "r.json").read_text())
    assert data["verdict"] == "not-conformant"
    assert (data["run"]["ended"], data["run"]["complete"]) == ("finished", True)
    return {row["id"]: row for row in data["requirements"]}


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
@pytest.mark.parametrize(
    ("name", "reason", "actual"),
    [
        ("Segfault", "process-died", "the process died with signal 11 (SIGSEGV) in exists('"),
        ("Exit", "process-died", "the process exited with status 3 in exists('"),
        ("GroupKilled", "process-died", "the process died with signal 9 (SIGKILL) in exists('"),
        ("SysExit", "process-died", "called sys.exit(4), which ends the process"),
        ("Hang", "deadline", "did not return within 20 s"),
    ],
)
def test_process_that_is_lost_is_a_violation(
    pytester: pytest.Pytester,
    directory: Path,
    name: str,
    reason: str,
    actual: str,
    processes: str,
) -> None:
    rows = _rows(pytester, name, processes, *[DEADLINE] * (name == "Hang"))

    assert ("violated", reason) == (rows["LIF-001"]["outcome"], rows["LIF-001"]["reason"])
    assert actual in rows["LIF-001"]["actual"]
    assert any("exists('" in line for line in rows["LIF-001"]["program"])
    assert rows["LIF-014"]["outcome"] == "blocked", "it rests on the requirement that died"
    assert rows["LIF-014"]["blocked_by"] == ["LIF-001"]
    assert (DEADLINE in rows["LIF-001"]["reproduce"]) is (name == "Hang")


def test_rest_of_the_run_continues(pytester: pytest.Pytester, directory: Path) -> None:
    done = pytester.runpytest_subprocess(
        "--driver=bad:HangInStream", "--requirement=DIF-001", "--requirement=LIF-00",
        "--graphdriver-report=r.json", "--graphdriver-profile=quick", "-p", "no:cacheprovider",
        DEADLINE,
    )  # fmt: skip

    rows = {
        row["id"]: row for row in json.loads((directory / "r.json").read_text())["requirements"]
    }
    assert done.ret == 1
    assert rows["DIF-001"]["reason"] == "deadline"
    assert ".read() did not return within 20 s" in rows["DIF-001"]["actual"]
    assert {"met"} == {rows[f"LIF-00{n}"]["outcome"] for n in range(1, 7)}


@pytest.mark.parametrize(
    ("name", "id", "reason", "expected", "actual"),
    [
        ("NoPath", "LIF-002", "wrong-type", "answers a path", "answered None"),
        ("Bytes", "DIF-001", "wrong-type", "answers a binary stream", "answered b'"),
        ("Text", "LIF-001", "wrong-type", "answers True or False", "answered 'yes'"),
    ],
)
def test_answer_of_a_wrong_type_is_a_violation_in_words(
    directory: Path, name: str, id: str, reason: str, expected: str, actual: str
) -> None:
    result = check(f"bad:{name}", requirements=[id], profile="quick")

    (row,) = result.violations
    assert (id, Reason(reason)) == (row.id, row.reason)
    assert expected in (row.expected or "")
    assert actual in (row.actual or "")
    assert not result.ok
    assert repr(result).startswith(f"<CheckResult bad:{name}: not-conformant, 1 violated")
    with pytest.raises(AssertionError, match=f"{id} .MUST.*{actual}"):
        result.raise_for_violations()


@pytest.mark.parametrize(
    ("name", "reason", "actual"),
    [
        ("Skips", Reason.RAISED, "raised Skipped, which is no error of a driver"),
        ("Exits", Reason.RAISED, "raised Exit, which is no error of a driver: enough"),
        ("Interrupts", Reason.RAISED, "raised KeyboardInterrupt, which interrupts the run"),
        ("ForksInBoth", Reason.RAISED, "returned in two processes: it forked"),
        ("FrozenTime", Reason.DEADLINE, "did not return within 20 s"),
        ("ClaimsLess", Reason.MISMATCH, "claimed when the run began"),
    ],
)
def test_driver_that_would_end_the_test_is_a_violation(
    directory: Path, name: str, reason: Reason, actual: str
) -> None:
    result = check(f"bad:{name}", requirements=["LIF-001"], profile="quick", deadline=20)

    (row,) = result.violations
    assert ("LIF-001", reason) == (row.id, row.reason)
    assert actual in (row.actual or "")


def test_attributes_of_a_driver_are_checked(directory: Path) -> None:
    result = check("bad:ClaimsRaise", requirements=["INI-001"], profile="quick")

    (row,) = result.violations
    assert (row.id, row.reason) == ("INI-001", Reason.RAISED)
    with pytest.raises(CheckFailed, match="layer_limit is a NoneType; it must be a int"):
        check("bad:NoLimit", requirements=["LIF-001"], profile="quick")


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
# -k ignores case, and the ids also contain "abc".
@pytest.mark.parametrize(("by", "count"), [("option", 3), ("conftest", 1)])
def test_part_of_its_tests_does_not_show_a_requirement(
    pytester: pytest.Pytester, by: str, count: int, processes: str
) -> None:
    if by == "conftest":
        pytester.makeconftest(
            "def pytest_collection_modifyitems(items):\n"
            "    items[:] = [one for one in items if 'ABC' not in one.nodeid]\n"
        )

    done = pytester.runpytest_subprocess(
        "--driver=vfs", "--requirement=LIF-001", "--requirement=LIF-014",
        "--graphdriver-report=r.json", "--graphdriver-profile=quick", "-p", "no:cacheprovider",
        processes, *["-k=not ABC"] * (by == "option"),
    )  # fmt: skip

    assert done.ret == 0
    data = json.loads((pytester.path / "r.json").read_text())
    rows = {row["id"]: row for row in data["requirements"]}
    assert data["verdict"] == "inconclusive"
    assert rows["LIF-001"]["outcome"] == "met"
    assert (rows["LIF-014"]["outcome"], rows["LIF-014"]["reason"]) == (
        "not-provable",
        "not-reported",
    )
    assert f"{count} of 5 tests were left out or did not report" == rows["LIF-014"]["detail"]
    assert rows["LIF-002"]["outcome"] == "not-selected"


def test_refusal_of_a_wrong_class_says_which_classes_refuse(directory: Path) -> None:
    result = check("bad:WrongClass", requirements=["LIF-008"], profile="quick")

    (row,) = result.violations
    assert (row.reason, row.actual) == (Reason.WRONG_ERROR, "it raised ValueError: no such parent")
    assert (row.expected or "").endswith("raises DriverError or OSError")


@pytest.mark.parametrize("id", ["INI-005", "INI-006", "INI-007", "INI-011"])
def test_refusal_of_init_has_its_class_checked(directory: Path, id: str) -> None:
    result = check("bad:WrongClassOfInit", requirements=[id], profile="quick")

    (row,) = result.violations
    assert (row.reason, row.actual) == (Reason.WRONG_ERROR, "it raised ValueError: no such option")


def test_refusal_of_a_hostile_id_has_its_class_checked(directory: Path) -> None:
    result = check("bad:WrongClassOfIds", requirements=["LIF-013"], profile="quick")

    (row,) = result.violations
    assert (row.reason, row.actual) == (Reason.WRONG_ERROR, "it raised ValueError: no such id")
    assert (row.expected or "").startswith("exists('")


def test_process_that_does_not_end_is_past_the_deadline(directory: Path) -> None:
    result = check("bad:NeverEnds", requirements=["CLN-010"], profile="quick", deadline=20)

    (row,) = result.violations
    assert row.reason is Reason.DEADLINE
    assert "20 s after its start the process has not ended" in (row.actual or "")


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_warnings_of_a_driver_are_in_the_summary(
    pytester: pytest.Pytester, directory: Path, processes: str
) -> None:
    """The class of a driver's own warning exists in the supervised process only."""
    done = pytester.runpytest_subprocess(
        "--driver=bad:Warns", "--requirement=LIF-001", "--graphdriver-profile=quick",
        "-p", "no:cacheprovider", processes,
    )  # fmt: skip

    assert done.ret == 0
    done.stdout.fnmatch_lines_random(
        [
            "*bad.py:*: DeprecationWarning: exists is deprecated",
            "*bad.py:*: UserWarning: OwnWarning: this driver is slow",
        ]
    )


def test_check_reports_a_process_that_dies(directory: Path) -> None:
    result = check("bad:Segfault", requirements=["LIF-001"], profile="quick", workers=2)

    assert not result.ok
    assert result.verdict is Verdict.NOT_CONFORMANT
    assert result.requirements["LIF-001"].reason is Reason.PROCESS_DIED


def test_command_reports_a_run_that_is_killed_with_its_driver(directory: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "graphdriver_conformance",
        "check",
        "bad:ParentKilled",
        "-n0",
    ]
    command += ["--requirement=LIF-001", "--requirement=INI-001", "--graphdriver-report=r.json"]

    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "the process of the suite was killed by SIGKILL" in done.stderr
    assert "INCONCLUSIVE" in done.stdout
    data = json.loads((directory / "r.json").read_text())
    assert (data["run"]["ended"], data["verdict"]) == ("crashed", "inconclusive")
    rows = {row["id"]: row["outcome"] for row in data["requirements"]}
    assert rows["INI-001"] == "met"
    assert rows["LIF-001"] == "not-provable"


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_has_a_verdict_and_leaves_nothing(
    directory: Path, number: signal.Signals, processes: str
) -> None:
    """The interrupt is sent while a verb hangs; the journal shows when that is."""
    command = [sys.executable, "-m", "pytest", "--driver=bad:Hang", processes, "-q"]
    command += ["--requirement=LIF-001", "--requirement=INI-001", "-p", "no:cacheprovider"]
    command += ["--graphdriver-report=r.json", "--graphdriver-journal=j.jsonl"]
    process = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        while "INI-001" not in _text(directory / "j.jsonl").partition('"test"')[2]:
            assert process.poll() is None, process.communicate()[0]
        process.send_signal(number)
        printed = process.communicate(timeout=300)[0]
    finally:
        process.kill()

    assert process.returncode == 2, printed
    assert "Traceback" not in printed, printed
    assert "INCONCLUSIVE" in printed
    (result,) = read_results([directory / "r.json"])
    assert (result.run.ended, result.run.complete) == (Ended.INTERRUPTED, False)
    assert result.requirements["INI-001"].outcome is Outcome.MET
    assert result.requirements["LIF-001"].reason is Reason.NOT_REPORTED


def test_journal_of_a_killed_run_can_be_reported(directory: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--driver=bad:ParentKilled", "-q"]
    command += ["--requirement=LIF-001", "--requirement=INI-001", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "--graphdriver-report=r.json"]
    subprocess.run(command, cwd=directory, capture_output=True, check=False)
    (place,) = (directory / "tmp").glob("graphdriver-*")
    place.rename(directory / "left")  # no process is left that could remove it

    (result,) = read_results([directory / "r.journal.jsonl"])

    assert not (directory / "r.json").exists()
    assert (result.run.ended, result.verdict) == (Ended.CRASHED, Verdict.INCONCLUSIVE)
    assert result.requirements["INI-001"].outcome is Outcome.MET
    assert result.requirements["LIF-001"].reason is Reason.NOT_REPORTED


def test_home_of_a_violation_is_kept(pytester: pytest.Pytester, directory: Path) -> None:
    for name in ("Text", "Exit"):
        rows = _rows(pytester, name, "--graphdriver-keep=kept")
        kept = Path(rows["LIF-001"]["kept"])
        assert directory / "kept" == kept.parent
        assert (kept / "home").is_dir()


def test_waived_violation_is_nowhere_a_failure(pytester: pytest.Pytester, directory: Path) -> None:
    (directory / "w.toml").write_text(
        '[[waive]]\nrequirement = "LIF-001"\nreason = "known"\nissue = "#1"\nuntil = "2999-01-01"\n'
    )

    done = pytester.runpytest_subprocess(
        "--driver=bad:Text", "--requirement=LIF-001", "--requirement=INI-001",
        "--graphdriver-waivers=w.toml", "--junitxml=j.xml", "-p", "no:cacheprovider",
    )  # fmt: skip

    assert done.ret == 0
    done.assert_outcomes(passed=1, skipped=1)
    junit = (directory / "j.xml").read_text()
    assert "<failure" not in junit
    assert "waived until 2999-01-01: known (#1)" in junit
    assert "LIF-001-bad:Text" in junit


@pytest.mark.parametrize(
    ("spec", "id", "more"),
    [
        ("bad:Text", "LIF-001", []),
        ("graphdriver_mutants:OpaqueDropped", "DIF-002", ["--graphdriver-seed=7"]),
        ("overlay2", "CON-005", ["--graphdriver-option=overlay2.mountopt=index=on"]),
    ],
)
def test_reproduce_line_reproduces(
    pytester: pytest.Pytester, directory: Path, spec: str, id: str, more: list[str]
) -> None:
    pytester.runpytest_subprocess(
        f"--driver={spec}", f"--requirement={id}", "--graphdriver-report=r.json",
        "--graphdriver-profile=quick", "-p", "no:cacheprovider", *more,
    )  # fmt: skip
    rows = json.loads((directory / "r.json").read_text())["requirements"]
    line = next(row["reproduce"] for row in rows if row["id"] == id)
    beside = os.path.dirname(sys.executable)
    environment = {**os.environ, "PATH": f"{beside}:{os.environ['PATH']}"}

    done = subprocess.run(
        line,
        shell=True,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert [one for one in more if one not in line] == []
    assert f"VIOLATED  {id} " in done.stdout


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
