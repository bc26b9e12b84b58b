"""A process at its descriptor limit (RLIMIT_NOFILE) gets EMFILE, and no remnants are left."""

import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphdriver.linux.mounts import mountinfo
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

Driver = Overlay2 | Vfs
ARCHIVE = build_archive([entry_of(name, file(b"x")) for name in ("f", "g")])
MOST = 14


@pytest.fixture(params=[Overlay2, Vfs])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    made: Driver = request.param(tmp_path / "home")
    made.create("base")
    made.apply_diff("base", "", io.BytesIO(ARCHIVE))
    made.create("child", "base")
    made.diff_size("child", "base")  # the one-time probes are done
    yield made
    made.cleanup()


@contextmanager
def _free_descriptors(count: int) -> Iterator[None]:
    """Limit the block to `count` new descriptors; the numbers of those in use do not change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(soft) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _held(driver: Driver) -> None:
    driver.get("child")
    driver.put("child")


_VERBS: dict[str, Callable[[Driver], object]] = {
    "init": lambda driver: (
        type(driver)(driver._directory.path)
        if isinstance(driver, Vfs)
        else Overlay2(driver._home.path)
    ),
    "create": lambda driver: driver.create("made", "base"),
    "remove": lambda driver: driver.remove("made"),
    "apply_diff": lambda driver: driver.apply_diff("child", "base", io.BytesIO(ARCHIVE)),
    "get": _held,
    "changes": lambda driver: driver.changes("child"),
}


@pytest.mark.parametrize("verb", _VERBS)
def test_verb_is_done_or_leaves_nothing(driver: Driver, tmp_path: Path, verb: str) -> None:
    home, done = tmp_path / "home", 0
    for count in range(MOST):
        if verb == "remove" and not driver.exists("made"):
            driver.create("made", "base")
        if verb == "create":
            driver.remove("made")
        before = sorted(os.listdir(home))
        failure = None
        try:
            with _free_descriptors(count):
                _VERBS[verb](driver)
            done += 1
        except OSError as error:
            failure = error
        if failure:
            driver.put("child")
            assert failure.errno == errno.EMFILE
            assert before == sorted(os.listdir(home))
        assert not [name for name in os.listdir(home) if name.startswith(".")]
        assert not list(home.glob("*/.applying"))
        assert mountinfo(home) == []

    assert done > 0
