"""Option names: those of the suite begin with `graphdriver`; short ones may belong to others."""

import re
import sys
from pathlib import Path

import pytest

from graphdriver_conformance.plugin import OPTIONS

pytest_plugins = ["pytester"]

REQUIREMENT_AND_DRIVER = """
def pytest_addoption(parser):
    parser.addoption("--requirement", action="append", default=[], help="of ours")
    parser.addoption("--driver", help="any storage driver, our own kind")

def pytest_configure(config):
    config.addinivalue_line("markers", "verifies(text): a marker of the project's own")
"""
PRINTS_BOTH = """
import pytest

@pytest.mark.verifies("REQ-7")
def test_it(request):
    option = request.config.getoption
    print("theirs:", option("driver"), *option("requirement"))
"""


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_names_begin_with_the_prefix() -> None:
    assert [name for name in OPTIONS if not name.startswith("--graphdriver")] == []


def test_page_of_the_options_names_each_option_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs/options.md").read_text("utf-8")

    assert sorted(set(re.findall(r"(--graphdriver[a-z-]*)=?", page))) == sorted(OPTIONS)


@pytest.mark.parametrize("value", ["own-driver", "vfs", "pkg.mod:Driver"])
def test_project_that_owns_the_spellings_keeps_them(pytester: pytest.Pytester, value: str) -> None:
    pytester.makeconftest(REQUIREMENT_AND_DRIVER)
    pytester.makepyfile(PRINTS_BOTH)

    result = _run(pytester, "--strict-markers", "-s", f"--driver={value}", "--requirement", "REQ-7")

    assert result.ret == 0
    result.stdout.fnmatch_lines([f"*theirs: {value} REQ-7*"])
    result.stdout.no_fnmatch_line("*verdict*")


def test_project_that_owns_the_spellings_can_run_the_suite(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(REQUIREMENT_AND_DRIVER)

    result = _run(
        pytester, "--graphdriver=vfs", "--graphdriver-requirement=lif-001", "--requirement=REQ-7"
    )

    assert result.ret == 0
    result.stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])


@pytest.mark.parametrize("option", [("--requirement", "LIF-001"), ("--requirement=LIF-001",)])
def test_check_keeps_its_options_where_a_project_owns_the_spellings(
    pytester: pytest.Pytester, option: tuple[str, ...]
) -> None:
    pytester.makeconftest(REQUIREMENT_AND_DRIVER)

    command = (sys.executable, "-m", "graphdriver_conformance", "check", "vfs", "-n0")
    result = pytester.run(*command, *option)

    assert result.ret == 0
    result.stdout.fnmatch_lines(["*verdict on vfs*", "MUST*1 met*"])


def test_plugin_that_owns_requirement_keeps_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(theirs=REQUIREMENT_AND_DRIVER, test_mine=PRINTS_BOTH)
    pytester.syspathinsert()

    result = _run(pytester, "-p", "theirs", "-s", "--requirement=LIF", "test_mine.py")

    result.stdout.fnmatch_lines(["*theirs: None LIF*"])


def test_short_options_without_a_driver_are_unknown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")

    result = _run(pytester, "--requirement=LIF-001")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*unrecognized arguments: --requirement=LIF-001*"])


def test_requirements_are_found_in_lower_case(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "--driver", "vfs", "--requirement", "lif-001")

    assert result.ret == 0
    result.stdout.fnmatch_lines(["MUST*1 met*"])


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf", "nan"])
def test_deadline_is_a_positive_number(pytester: pytest.Pytester, value: str) -> None:
    result = _run(pytester, "--driver=vfs", f"--graphdriver-deadline={value}")

    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*'{value}' is not a positive number of seconds*"])


@pytest.mark.parametrize(
    ("variable", "arguments", "expected"),
    [
        (None, [], 60.0),
        ("2.5", [], 2.5),
        ("2.5", ["--graphdriver-deadline=7"], 7.0),
    ],
)
def test_deadline_is_the_options_or_the_environments(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    arguments: list[str],
    expected: float,
) -> None:
    monkeypatch.delenv("GRAPHDRIVER_DEADLINE", raising=False)
    if variable:
        monkeypatch.setenv("GRAPHDRIVER_DEADLINE", variable)

    config = pytester.parseconfig("--driver=vfs", *arguments)

    assert config.getoption("graphdriver_deadline") == expected


def test_malformed_deadline_of_the_environment_affects_runs_of_the_suite_only(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHDRIVER_DEADLINE", "soon")
    pytester.makepyfile("def test_it(): pass")

    assert _run(pytester).ret == 0
    refused = _run(pytester, "--driver=vfs")
    assert refused.ret == 4
    refused.stderr.fnmatch_lines(["*$GRAPHDRIVER_DEADLINE: 'soon' is not a positive number*"])


def test_own_check_without_a_driver_asks_for_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(graphdriver): pass")

    without = _run(pytester)
    result = _run(pytester, "--driver=vfs", "test_own_check_without_a_driver_asks_for_one.py")

    without.assert_outcomes(errors=1)
    without.stdout.fnmatch_lines(["*no driver to test: name one with --driver=SPEC*"])
    result.assert_outcomes(passed=1)
