"""The suite as a library, and as fixtures for additional checks of a driver author."""

import pytest

from graphdriver_conformance import check, oracle
from graphdriver_conformance.results.model import Outcome, Verdict
from graphdriver_conformance.session.library import CheckFailed, spec_of
from graphdriver_mutants import MUTANTS

pytest_plugins = ["pytester"]


def test_check_returns_the_result() -> None:
    result = check(MUTANTS["UnknownDiffIsEmpty"], requirements=["DIF-008", "LIF-001"])

    assert Verdict.NOT_CONFORMANT is result.verdict
    assert Outcome.VIOLATED is result.requirements["DIF-008"].outcome
    assert result.requirements["DIF-008"].program
    assert Outcome.MET is result.requirements["LIF-001"].outcome


@pytest.mark.parametrize(
    ("driver", "words"),
    [("overlya2", "no such driver"), (lambda *_: None, "cannot be imported by another process")],
)
def test_check_that_cannot_run_says_why(driver: object, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        check(driver)  # type: ignore[arg-type]


def test_factories_are_named_by_module_and_attribute() -> None:
    broken = MUTANTS["UnknownDiffIsEmpty"]

    assert spec_of(broken) == f"{broken.__module__}:UnknownDiffIsEmpty"


def test_public_names_of_the_oracle_are_there() -> None:
    assert [name for name in oracle.__all__ if not hasattr(oracle, name)] == []


def test_own_checks_use_fixture_and_oracle(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="""
        from graphdriver_conformance.oracle import Tree, assert_same_tree

        def test_good(graphdriver):
            layer = graphdriver.build(Tree.of({"a": b"a"}))
            assert_same_tree(Tree.of({"a": b"a"}), graphdriver.tree(layer))

        def test_bad(graphdriver):
            layer = graphdriver.build(Tree.of({"a": b"a"}))
            assert_same_tree(Tree.of({"b": b"b"}), graphdriver.tree(layer), "of mine")
        """
    )

    result = pytester.runpytest_subprocess(
        "--driver=vfs", "test_mine.py", "-p", "no:xdist", "-p", "no:cacheprovider"
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*of mine*", "*- /b: the file is missing*"])
    result.stdout.no_fnmatch_line("*verdict on*")
    assert result.ret == 1
