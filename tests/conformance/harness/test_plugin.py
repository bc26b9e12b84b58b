"""The pytest plugin: ownership of --driver, invalid drivers, and effects on other test suites."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from graphdriver_conformance.host.environment import filesystem_of

pytest_plugins = ["pytester"]

BROWSER = """
import pytest
def pytest_addoption(parser):
    parser.addoption("--driver", choices=["firefox", "chrome"], help="browser")
"""
PRINTS_DRIVER = "def test_it(request): print('driver is', request.config.getoption('driver'))"


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def _left(pytester: pytest.Pytester) -> set[str]:
    """Return the files that a run left, except those of pytester itself."""
    names = {path.name for path in pytester.path.iterdir()}
    return {name for name in names if not name.startswith(("runpytest", "stdout", "stderr"))}


def test_driver_alone_runs_the_suite_from_anywhere(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "--driver=vfs", "--requirement=LIF-001")

    result.stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])
    assert result.ret == 0
    assert _left(pytester) == set(), "the run left something behind"


def test_option_and_value_may_be_two_words(pytester: pytest.Pytester) -> None:
    assert _run(pytester, "--driver", "vfs", "--requirement=LIF-001").ret == 0


def test_projects_own_settings_do_not_get_in_the_way(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        "[pytest]\ntestpaths = mine\npython_files = check_*.py\nfilterwarnings = error\n"
        "addopts = --strict-markers --driver=vfs --requirement=LIF-001\n"
    )
    (pytester.path / "mine").mkdir()

    result = _run(pytester)

    result.stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])


def test_environment_may_name_the_driver(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--driver=vfs --requirement=LIF-001")

    _run(pytester).stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])


def test_conftest_that_owns_driver_keeps_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(BROWSER)
    pytester.makepyfile(PRINTS_DRIVER)

    result = _run(pytester, "--driver=firefox", "-s")

    result.stdout.fnmatch_lines(["*driver is firefox*"])
    assert result.ret == 0


def test_conftest_that_owns_driver_does_not_keep_ours(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(BROWSER)

    result = _run(pytester, "--driver=vfs", "--requirement=LIF-001")

    result.stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_plugin_that_owns_driver_can_be_combined(pytester: pytest.Pytester, first: bool) -> None:
    name = "aaa_browser" if first else "zzz_browser"
    pytester.makepyfile(**{name: BROWSER})
    pytester.makepyfile(test_mine=PRINTS_DRIVER)
    pytester.syspathinsert()

    theirs = _run(pytester, "-p", name, "--driver=firefox", "-s", "test_mine.py")
    ours = _run(pytester, "-p", name, "--driver=vfs", "--requirement=LIF-001")

    theirs.stdout.fnmatch_lines(["*driver is firefox*"])
    ours.stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])


def test_misspelt_name_has_a_suggestion(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "--driver=overlya2")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*no such driver; did you mean overlay2?*"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere:Driver", "importing nowhere raised ModuleNotFoundError"),
        ("broken:Driver", "importing broken raised RuntimeError: at import"),
        ("mine:Nothing", "Nothing does not exist"),
        ("mine:number", "number is a int"),
        ("mine:Empty", "the driver lacks create"),
        ("mine:Narrow", "put cannot be called with 1 arguments"),
        ("crio+unix:///x", "no such kind of driver"),
    ],
)
def test_bad_spec_is_one_sentence(pytester: pytest.Pytester, spec: str, words: str) -> None:
    pytester.makepyfile(
        broken="raise RuntimeError('at import')",
        mine="""
        from graphdriver.vfs import Driver
        number = 3
        class Empty:
            def __init__(self, *_): pass
        class Narrow(Driver):
            def put(self): pass
        """,
    )

    result = _run(pytester, f"--driver={spec}")

    assert result.ret == 4
    text = result.stderr.str() + result.stdout.str()
    assert words in text
    assert "Traceback" not in text


def test_unknown_requirement_and_missing_home_are_usage_errors(pytester: pytest.Pytester) -> None:
    assert _run(pytester, "--driver=vfs", "--requirement=XYZ-1").ret == 4
    assert _run(pytester, "--driver=vfs", "--graphdriver-home=/no/such/place").ret == 4


def test_runs_without_a_driver_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="""
        import sys
        def test_nothing_of_ours_is_loaded():
            ours = {name for name in sys.modules if name.startswith("graphdriver_conformance.")}
            assert {"graphdriver_conformance.plugin"} == ours
            assert "hypothesis.stateful" not in sys.modules
        """
    )

    result = _run(pytester)

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("graphdriver:*")
    result.stdout.no_fnmatch_line("*verdict*")


def test_result_file_has_every_requirement(pytester: pytest.Pytester) -> None:
    _run(
        pytester,
        "--driver=vfs",
        "--requirement=LNK",
        "--requirement=LIF-001",
        "--graphdriver-report=r.json",
    )

    result = json.loads((pytester.path / "r.json").read_text())
    outcomes = {row["id"]: row["outcome"] for row in result["requirements"]}
    keys = {"schema", "suite", "driver", "run", "environment", "started", "seconds", "verdict"}
    assert keys | {"counts", "requirements"} == set(result)
    assert result["schema"] == 2
    assert outcomes["LIF-001"] == "met"
    assert outcomes["LNK-001"] == "not-claimed"
    assert outcomes["DIF-001"] == "not-selected"
    assert result["verdict"] == "conformant", "a selection has a verdict of its own"
    assert sum(result["counts"].values()) == len(outcomes)


def test_violation_reads_like_a_bug_report(pytester: pytest.Pytester) -> None:
    spec = "graphdriver_mutants:UnknownDiffIsEmpty"

    result = _run(pytester, f"--driver={spec}", "--requirement=DIF-008", "--junitxml=j.xml")

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "VIOLATED  DIF-008 (MUST)*",
            "*expected:  diff('nope') raises DriverError or OSError",
            "*actual:    it returned a stream of 1024 bytes",
            "*program:*",
            "*create_read_write('layer-0')*",
            "*diff('nope')*",
            f"*reproduce: pytest --driver={spec} --requirement=DIF-008*",
            "*NOT CONFORMANT*",
        ]
    )
    junit = (pytester.path / "j.xml").read_text()
    assert 'name="requirement" value="DIF-008"' in junit
    assert 'name="level" value="MUST"' in junit


def test_level_decides_what_fails(pytester: pytest.Pytester) -> None:
    spec = "--driver=graphdriver_mutants:WhiteoutsLast"  # DIF-012 is a SHOULD

    assert _run(pytester, spec, "--requirement=DIF-012", "--requirement=DIF-001").ret == 0
    level = "--graphdriver-level=should"
    assert _run(pytester, spec, level, "--requirement=DIF-012", "--requirement=DIF-001").ret == 1


def test_nothing_proven_is_a_failure(pytester: pytest.Pytester) -> None:
    assert _run(pytester, "--driver=vfs", "--requirement=LNK").ret == 1


def test_broken_create_blocks_dependent_requirements(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        mine="""
        from graphdriver.vfs import Driver
        class Mine(Driver):
            def exists(self, id): return False
        """
    )

    result = _run(
        pytester, "--driver=mine:Mine", "--requirement=LIF", "--graphdriver-report=r.json"
    )

    rows = json.loads((pytester.path / "r.json").read_text())["requirements"]
    outcomes = {row["id"]: row["outcome"] for row in rows}
    assert (outcomes["LIF-001"], outcomes["LIF-014"]) == ("violated", "blocked")
    result.stdout.fnmatch_lines(["*blocked by LIF-001: *LIF-014*"])


def test_two_workers_and_two_drivers(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")

    result = _run(
        pytester,
        "--driver=vfs",
        "--driver=overlay2",
        "-n2",
        "--requirement=LIF-00",
        "--graphdriver-report=r.json",
    )

    result.stdout.fnmatch_lines(["*verdict on vfs*", "*verdict on overlay2*"])
    assert _left(pytester) == {"r-vfs.json", "r-overlay2.json"}


def test_same_seed_is_the_same_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        mine="""
        from graphdriver.vfs import Driver
        class Mine(Driver):
            def create(self, id, *rest):
                super().create(id, *rest)
            create_read_write = create
            def changes(self, id, parent=""):
                found = super().changes(id, parent)
                with open("log", "a") as log: print(found, file=log)
                return found
        """
    )
    logs = []
    for seed in (1, 1, 2):
        (pytester.path / "log").write_text("")
        _run(pytester, "--driver=mine:Mine", "--requirement=CHG-019", f"--graphdriver-seed={seed}")
        logs.append((pytester.path / "log").read_text())

    assert logs[1] == logs[0]
    assert logs[0] != logs[2]


def test_command_line_lists_and_explains(pytester: pytest.Pytester) -> None:
    def graphdriver(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "graphdriver_conformance", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "LIF-001" in graphdriver("list", "LIF").stdout
    assert "moby #36161" in graphdriver("explain", "LNK-008").stdout
    assert graphdriver("explain", "NOPE-1").returncode == 4
    assert graphdriver("nonsense").returncode == 2


def test_home_on_overlay_is_refused(pytester: pytest.Pytester, tmp_path: Path) -> None:
    script = f"""
    cd {tmp_path} && mkdir l u w m
    mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m
    {sys.executable} -m pytest --driver=vfs --graphdriver-home=m --requirement=LIF-001
    """
    command = ["unshare", "--mount", "--map-root-user", "sh", "-ec", script]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 4, done.stdout + done.stderr
    assert "is on overlay" in done.stderr


def test_mounts_left_below_odd_names_do_not_end_the_run(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    result = _run(
        pytester,
        "--driver=graphdriver_mutants:HomeStaysMounted",
        "--requirement=INI-012",
        "--requirement=CLN-009",
        "--graphdriver-report=r.json",
    )

    assert result.ret == 1
    rows = json.loads((pytester.path / "r.json").read_text())["requirements"]
    assert {row["id"]: row["outcome"] for row in rows}["CLN-009"] == "violated"
    assert list(tmp_path.glob("graphdriver-*")) == []


def test_quick_run_has_homes_on_tmpfs_unless_a_home_is_given(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    def judged_on(*arguments: str) -> str:
        _run(
            pytester, "--driver=vfs", "--requirement=LIF-001", "--graphdriver-report=r", *arguments
        )
        return str(json.loads((pytester.path / "r").read_text())["environment"]["filesystem"])

    with tempfile.TemporaryDirectory() as where:
        assert judged_on() == filesystem_of(Path(where))
    assert judged_on("--graphdriver-profile=quick") == "tmpfs"
    assert judged_on(
        "--graphdriver-profile=quick", f"--graphdriver-home={tmp_path}"
    ) == filesystem_of(tmp_path)


ALIVE = """
import weakref
from graphdriver.vfs import Driver as Vfs
alive = weakref.WeakSet()
class Driver(Vfs):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        alive.add(self)
        if len(alive) > 12:
            raise OSError(24, "Too many open files")
"""


def test_drivers_of_earlier_tests_are_not_kept(pytester: pytest.Pytester) -> None:
    """Each has open descriptors: without xdist, the whole suite exceeded a limit of 1024."""
    pytester.makepyfile(mine=ALIVE)
    result = pytester.runpytest_subprocess(
        *("--driver=mine:Driver", "--requirement=LIF", "--graphdriver-profile=quick"),
        *("-p", "no:cacheprovider", "-p", "no:xdist"),
    )

    assert result.ret == 0
    assert result.parseoutcomes()["passed"] > 20
