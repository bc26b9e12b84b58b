"""Broken drivers, each with a real bug: what proves that the suite can see.

A mutant is a sound driver, taken from the entry points at run time, with one verb or one file made
wrong. Its name is a SPEC: `pytest --driver=graphdriver_mutants:LinkLeaked`. Those of
the plugin protocol are plugins: `wire_server` says how one is started. The proof is in
`tests/conformance/mutants`: each mutant is caught by the requirements it names.
"""

from graphdriver_mutants import (  # noqa: F401  importing registers
    appliers,
    archives,
    attributes,
    carried,
    changes,
    cleanup,
    concurrency,
    crashes,
    dialects,
    differs,
    disks,
    escapes,
    failing_calls,
    fidelity,
    filesystem,
    fuse,
    idmap,
    idmap_fidelity,
    init,
    kernel,
    leaks,
    lifecycle,
    links,
    meetings,
    mounts,
    power,
    quota,
    refusals,
    standing,
    surroundings,
    variants_more,
    whiteouts,
    wire,
)
from graphdriver_mutants.registry import MUTANTS, Broken, Mutant

__all__ = ["MUTANTS", "Broken", "Mutant"]


def __getattr__(name: str) -> type[Broken]:
    """Return the mutant of that name, so that it can be named in a SPEC."""
    try:
        return MUTANTS[name]
    except KeyError:
        raise AttributeError(name) from None
