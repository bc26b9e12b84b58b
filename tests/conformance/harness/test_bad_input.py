"""Bad input is reported in one sentence with the remedy, exit code 4 and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

DRIVERS = """
from graphdriver.vfs import Driver

class Claims(Driver):
    capabilities = "user_xattrs"

class Slips(Driver):
    capabilities = {"user_xattrs", "sparse_file"}

class Silent(Driver):
    def __str__(self): raise RuntimeError("no name")
    def status(self): raise RuntimeError("no status")
"""


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(mine=DRIVERS)
    fixed = ["-p", "no:xdist", "-p", "no:cacheprovider", "--requirement=LIF-001"]
    return pytester.runpytest_subprocess(*fixed, *arguments)


def _assert_refused(done: pytest.RunResult, words: str) -> None:
    output = done.stdout.str() + done.stderr.str()
    assert done.ret == 4, output
    assert words in output
    assert "Traceback" not in output
    assert len([line for line in output.splitlines() if line.strip()]) == 1, output


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--graphdriver-report=no/r.json", "there is no directory no; make it first"),
        ("--graphdriver-html=no/r.html", "there is no directory no; make it first"),
        ("--graphdriver-html=.", "is a directory; name a file"),
        ("--graphdriver-repro=mine.py", "is a file; name a directory"),
        ("--graphdriver-home=mine.py", "no such directory; make it first"),
        ("--graphdriver-waivers=mine.py", "is not TOML"),
        ("--graphdriver-baseline=mine.py", "is not a result file"),
        ("--requirement=XYZ", "no such requirement"),
    ],
)
def test_bad_option_is_refused(pytester: pytest.Pytester, argument: str, words: str) -> None:
    done = _run(pytester, "--driver=vfs", argument)

    output = done.stdout.str() + done.stderr.str()
    assert done.ret == 4, output
    assert words in output
    assert "Traceback" not in output


@pytest.mark.parametrize("spec", ["http://example.org/driver", "unix:/run/x.sock"])
def test_address_of_no_known_kind_is_named_as_such(pytester: pytest.Pytester, spec: str) -> None:
    _assert_refused(_run(pytester, f"--driver={spec}"), f"{spec}: no such kind of driver")


def test_name_of_no_driver_ends_in_whole_sentences(pytester: pytest.Pytester) -> None:
    words = "--driver=nosuch: no such driver; there are overlay2, vfs; or module:attribute"

    _assert_refused(_run(pytester, "--driver=nosuch"), words)


def test_claims_that_are_not_a_set_are_refused(pytester: pytest.Pytester) -> None:
    _assert_refused(_run(pytester, "--driver=mine:Claims"), "capabilities is a str; it must be a")


def test_claims_of_unknown_capabilities_are_refused(pytester: pytest.Pytester) -> None:
    done = _run(pytester, "--driver=mine:Slips")

    _assert_refused(done, "unknown capability 'sparse_file'; did you mean 'sparse_files'?")


def test_driver_without_a_name_is_tested_nevertheless(pytester: pytest.Pytester) -> None:
    done = _run(pytester, "--driver=mine:Silent")

    assert done.ret == 0
    done.stdout.fnmatch_lines(["mine:Silent: *"])


def test_too_little_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    script = f"""
    mount -t tmpfs -o size=1m none {tmp_path}/small
    cd {tmp_path}
    {sys.executable} -m pytest --driver=vfs --graphdriver-home=small --requirement=LIF-001
    """
    command = ["unshare", "--mount", "--map-root-user", "sh", "-ec", script]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 4, done.stdout + done.stderr
    assert "MiB are free" in done.stderr
    assert "Traceback" not in done.stderr
