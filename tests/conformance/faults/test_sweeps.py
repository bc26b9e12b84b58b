"""Sweeps use the same points with the same names in each run, and report if they cannot run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from graphdriver_conformance.drivers.resolve import BadSpec, resolve
from graphdriver_conformance.faults.calls import Call, CallKind, without_random_names
from graphdriver_conformance.faults.findings import Finding, Swept, Where, ordinal
from graphdriver_conformance.faults.processes import cannot_start
from graphdriver_conformance.host import seccomp
from graphdriver_conformance.suite.support.fault_report import chosen_points

SWEEP = """
import json, sys
from graphdriver_conformance.drivers.resolve import BadSpec, resolve
from graphdriver_conformance.fixture.homes import Homes
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host import namespaces
from graphdriver_conformance.host.environment import probe
from graphdriver_conformance.suite.support.error_sweep import error_sweep
from graphdriver_conformance.suite.support.fault_scene import Scene
from graphdriver_conformance.suite.support.kill_sweep import kill_sweep
privileges = namespaces.enter()
homes = Homes.make(None, True)
subject = Subject(resolve(sys.argv[1]), homes.new(), (), probe(homes.base, privileges))
scene = Scene(subject)
scene.build()
found = [kill_sweep(scene, name, 4) for name in sys.argv[2].split()]
found += [error_sweep(scene, name, int(sys.argv[4]), every=False) for name in sys.argv[3].split()]
json.dump([one.to_data() for one in found], sys.stdout)
subject.close()
homes.discard_all()
"""

# Fails if a part of the archive exists, which only an error in a layer in use leaves behind.
ONLY_ONCE = """
import os
from graphdriver.errors import DriverError
from graphdriver.overlay2 import Driver
class OnlyOnce(Driver):
    def apply_diff(self, id, parent, diff):
        if os.path.exists(f"{self.get_metadata(id)['MergedDir']}/vdir"):
            raise DriverError("vdir is there already")
        return super().apply_diff(id, parent, diff)
"""


def _swept(driver: str, kills: str, errors: str, points: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", SWEEP, driver, kills, errors, str(points)]
    found = subprocess.run(command, check=True, capture_output=True).stdout
    return cast(list[dict[str, Any]], json.loads(found))


def _calls(*names: str) -> list[Call]:
    kinds = {"mount": CallKind.MOUNT}
    return [Call(name, kinds.get(name, CallKind.CHANGE), 1, (b"/h/x",), "/h/x") for name in names]


@pytest.mark.skipif(bool(seccomp.why_impossible()), reason="processes cannot be supervised here")
def test_same_points_with_the_same_names() -> None:
    first, second = (
        _swept("overlay2", "create_child apply_child init", "remove_child", 3) for _ in "12"
    )

    assert second == first
    assert [one["findings"] for one in first] == [[]] * 4
    assert [len(one["tried"]) for one in first] == [5, 5, 5, 3]
    assert "(renameat2 .creating-LINK layer-11)" in first[0]["tried"][-1]


@pytest.mark.skipif(bool(seccomp.why_impossible()), reason="processes cannot be supervised here")
def test_second_archive_completes_what_the_first_left_in_a_layer_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_once.py").write_text(ONLY_ONCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    right, wrong = (
        _swept(driver, "", "apply_held", 16)[0] for driver in ("overlay2", "only_once:OnlyOnce")
    )

    assert right["findings"] == []
    assert {one["requirement"] for one in wrong["findings"]} == {"CRS-043"}


def test_all_points_are_tried_where_they_are_few() -> None:
    assert chosen_points(_calls("mkdir", "write", "rename"), 3) == [1, 2, 3]
    assert chosen_points([], 3) == []


def test_points_around_renames_and_mounts_come_first() -> None:
    calls = _calls(*["write"] * 40, "rename", *["write"] * 40, "mount", *["write"] * 40)

    points = chosen_points(calls, 12)

    assert {1, 41, 42, 82, 83, 122} <= set(points)
    assert len(points) == 12
    assert chosen_points(calls, 12) == points


def test_few_kills_are_after_mounts_and_in_the_middle_rather_than_at_the_beginning() -> None:
    in_place = _calls(*["write"] * 9)
    probing = _calls("mkdir", "mount", "umount2", *["write"] * 6)

    assert chosen_points(in_place, 3, with_first=False) == [3, 7, 9]
    assert 3 in chosen_points(probing, 3, with_first=False)


def test_random_parts_of_names_are_masked() -> None:
    text = "h/.creating-AAAABBBBCCCCDDDDEEEEFFFF23/l .probe-a1b2c3d4 .tmp-layers.json123456789"

    assert without_random_names(text) == "h/.creating-LINK/l .probe-RANDOM .tmp-layers.jsonNUMBER"


@pytest.mark.parametrize(
    "spec", ["plugin+unix:///run/some.sock", "containerd+unix:///c.sock?snapshotter=overlayfs"]
)
def test_driver_that_others_started_cannot_be_supervised(spec: str) -> None:
    try:
        source = resolve(spec)
    except BadSpec as error:  # a package that only the containerd adapter requires
        pytest.skip(str(error))

    assert "the suite did not start the driver" in cannot_start(source)


def test_findings_survive_the_file_between_processes() -> None:
    where = Where("create_child", "ENOSPC", 3, with_reads=True)
    found = Finding(
        "CRS-040", where, "it failed", "a", "b", ("- /x",), ("get()",), ("m",), "strace"
    )
    swept = Swept("create_child", 9, ["one"], [found], ["a note"])

    assert Swept.from_data(json.loads(json.dumps(swept.to_data()))) == swept


def test_ordinals() -> None:
    wanted = ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]

    assert [ordinal(int(one[:-2])) for one in wanted] == wanted
