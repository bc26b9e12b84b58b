"""Broken drivers, each with a real bug, which prove that the suite detects bugs.

A mutant is a correct driver, loaded from its entry point, with a bug in one verb or one file. Its
name is a SPEC: `pytest --driver=graphdriver_mutants:LinkLeaked`. The mutants of the plugin protocol
are plugins, which `wire_server` starts. `tests/conformance/mutants` checks that each mutant
violates the requirements that it declares.
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
    kinds,
    layers_in_use,
    leaks,
    lifecycle,
    links,
    member_conflicts,
    mounts,
    power,
    processes,
    quota,
    refusals,
    surroundings,
    variants_archives,
    variants_families,
    variants_refusing,
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
