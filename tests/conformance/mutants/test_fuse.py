"""The common base of FUSE mutants is correct: they are detected only because of their bugs."""

import os

import pytest

from graphdriver_mutants import MUTANTS
from graphdriver_mutants.fuse import FuseViews
from graphdriver_mutants.judgement import Judge, judge

SPEC = f"{FuseViews.__module__}:{FuseViews.__name__}"


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")
def test_unmodified_fuse_views_are_conformant() -> None:
    broken = {id for one in MUTANTS.values() if issubclass(one, FuseViews) for id in one.breaks}
    asked = {"FSX-001", "FSX-002", "FSX-003", "FSX-004", "FSX-020", *broken}

    with Judge() as judges:
        outcomes = judges.submit(judge, SPEC, sorted(asked), "quick").result()

    assert outcomes == dict.fromkeys(asked, "met")
