"""An importable conformance suite for layered-storage drivers.

Of `graphdriver` it imports the contract and the errors only: the suite shares no code with a
driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from graphdriver_conformance.session.library import CheckResult

__all__ = ["check"]


def check(
    driver: str | Callable[..., object],
    *,
    requirements: Sequence[str] = (),
    options: Sequence[str] = (),
    profile: str = "default",
    seed: int = 0,
    home: str | None = None,
    workers: int = 0,
    level: str = "must",
    deadline: float | None = None,
    waivers: str | None = None,
    baseline: str | None = None,
) -> CheckResult:
    """Run the suite on a driver and return the result, for notebooks and other runners.

    `driver` is a SPEC as for `--driver`, or a factory that can be imported. `requirements` are ids
    or prefixes, none meaning all; `options` are the driver's; `workers` is the number of processes
    (pytest-xdist). `level` is the lowest that fails the run, `deadline` the seconds that a verb may
    take, `waivers` and `baseline` name files. The suite runs in a process of its own, because it
    enters namespaces. Raises library.CheckFailed if it could not run.
    """
    # Every pytest run of the environment imports this package, so it imports nothing else.
    from graphdriver_conformance.session.library import run_suite

    settings = {
        "requirement": list(requirements),
        "option": list(options),
        "profile": profile,
        "seed": seed,
        "home": home,
        "level": level,
        "deadline": deadline,
        "waivers": waivers,
        "baseline": baseline,
    }
    return run_suite(driver, settings, workers)
