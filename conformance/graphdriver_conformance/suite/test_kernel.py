"""KRN: differences between kernels, mount options and disks have no effect on layers."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from graphdriver.contract import Capability, Driver
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.mountinfo import mounts_below
from graphdriver_conformance.oracle.changes import change_findings
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.suite.support import rootless
from graphdriver_conformance.suite.support.beside import (
    importing_as_here,
    option_prefix,
    run_program,
)
from graphdriver_conformance.suite.support.container_edits import IMAGE, edit
from graphdriver_conformance.suite.support.differential import plain_directory
from graphdriver_conformance.suite.support.disks import (
    DISKS,
    OLD_DISKS,
    OTHER_DISKS,
    CannotMake,
    disk,
)
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.names import assert_same_names, home_names


def _judge(graphdriver: Subject, what: str) -> None:
    """Edit a layer and a plain directory: view, changes, archive and children must agree."""
    plain = plain_directory(graphdriver, IMAGE)
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        edit(root)
        edit(plain)
        wanted = observe(plain)
        assert_same_tree(wanted, observe(root), f"{what}: the view")
    if graphdriver.claims(Capability.CHANGES):
        findings = change_findings(IMAGE, wanted, graphdriver.changes(layer, base))
        assert findings == [], f"{what}: changes"
    sibling = graphdriver.new_layer(base)
    graphdriver.apply_diff(sibling, base, graphdriver.diff_bytes(layer, base))
    child = graphdriver.new_layer(layer)
    for id, where in ((layer, "mounted again"), (sibling, "carried over"), (child, "in a child")):
        assert_same_tree(wanted, graphdriver.tree(id), f"{what}: {where}")


@verifies("KRN-001")
def test_copied_home_serves_the_same_layers(graphdriver: Subject) -> None:
    """cp -a to a larger disk: overlayfs's index refuses files with other inodes."""
    place = graphdriver.home.parent
    graphdriver.use(graphdriver.open_another(place / "before", ()))
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        edit(root)
        wanted = observe(root)
    graphdriver.cleanup()

    run_program(graphdriver, ["cp", "--archive", place / "before", place / "after"])
    graphdriver.use(graphdriver.open_another(place / "after", ()))

    assert_same_tree(wanted, graphdriver.tree(layer), "after the home was copied")


@verifies("KRN-007")
def test_init_while_layers_are_held(graphdriver: Subject) -> None:
    """The daemon restarts while containers run: its probes must not fail because of their
    mounts.
    """
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    root = graphdriver.get(layer)

    graphdriver.reopen(cleanup=False)

    assert_same_tree(IMAGE, observe(root), "Init changed the view of a container")
    assert_same_tree(IMAGE, graphdriver.tree(layer))


@verifies("KRN-008")
def test_refused_init_leaves_nothing(graphdriver: Subject) -> None:
    """On disks that the driver does not support, no mount and no file of a probe is left."""
    refused = 0
    for kind in ("full", "overlay", "ramfs"):
        try:
            with disk(kind, graphdriver.home.parent / kind) as place:
                before = home_names(place)
                mounts = mounts_below(place.parent)
                driver = _opened(graphdriver, place)
                if driver is None:
                    refused += 1
                    assert_same_names(before, home_names(place), f"{kind}: files of the probe")
                    left = [str(row) for row in mounts_below(place.parent) if row not in mounts]
                    assert left == [], f"{kind}: the probe left mounts"
        except CannotMake as error:
            graphdriver.not_provable(f"not tried on {kind}: {_first_line(error)}")
    graphdriver.note(f"{refused} disk(s) were refused")


def _opened(graphdriver: Subject, place: Path) -> Driver | None:
    try:
        return graphdriver.open_another(place / "home")
    except (DriverError, OSError) as error:
        graphdriver.note(f"refused: {error}")
        return None


@verifies("KRN-009")
def test_failed_mount_names_its_layer(graphdriver: Subject) -> None:
    """A lower is missing: the error names the layer, no mount or hold is left, and it can be
    repaired.
    """
    base = graphdriver.build(IMAGE)
    layer = graphdriver.new_layer(base, writable=True)
    lower = graphdriver.home / base / "diff"
    lower.rename(lower.with_name("aside"))

    error = graphdriver.refuses("get", layer)

    message = "\n".join([str(error), *getattr(error, "__notes__", ())])
    assert layer in message, f"the error does not name the layer: {message}"
    assert graphdriver.mounts() == [], "the failed get left a mount"
    lower.with_name("aside").rename(lower)
    assert_same_tree(IMAGE, graphdriver.tree(layer), "after the lower was restored")
    assert graphdriver.mounts() == [], "the failed get was counted"


@verifies("KRN-010")
def test_every_setting_of_overlay(graphdriver: Subject) -> None:
    """Kernels have different defaults; layers are the same with each."""
    settings = list(itertools.product(("off", "on"), repeat=4))
    # Every third or fifth of the sixteen: each setting is on and off in half of these.
    wanted = settings[:: max(1, 15 // scaled(5))]
    names = ("redirect_dir", "metacopy", "index", "xino")
    tried, prefix = 0, option_prefix(graphdriver)
    for values in wanted:
        option = ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        place = graphdriver.home.parent / option.replace(",", "-")
        try:
            driver = graphdriver.open_another(place, [f"{prefix}.mountopt={option}"])
        except (DriverError, OSError) as error:
            graphdriver.note(f"{option}: {error}")
            continue
        tried += 1
        graphdriver.use(driver)
        _judge(graphdriver, option)
        graphdriver.cleanup()
    if not tried:
        graphdriver.not_claimed("Init takes no setting of its option mountopt")


@verifies("KRN-011")
def test_every_disk(graphdriver: Subject) -> None:
    """Layers are correct on a disk, or Init refuses it."""
    _judge_disks(graphdriver, DISKS)


@verifies("INI-020")
def test_every_other_disk(graphdriver: Subject) -> None:
    """The two usual file systems of servers beside ext4; the quick profile tests the first."""
    _judge_disks(graphdriver, OTHER_DISKS[: max(1, scaled(10) // 5)])


@verifies("INI-021")
def test_every_old_disk(graphdriver: Subject) -> None:
    """A USB stick, and a disk from before an upgrade; the quick profile tests the first."""
    _judge_disks(graphdriver, OLD_DISKS[: max(1, scaled(10) // 5)])


def _judge_disks(graphdriver: Subject, kinds: Sequence[str]) -> None:
    """Test the driver on each available file system; then report the missing ones."""
    own, missing = graphdriver.driver, []
    for kind in kinds:
        try:
            with disk(kind, graphdriver.home.parent / kind) as place:
                driver = _opened(graphdriver, place)
                if driver is not None:
                    graphdriver.use(driver)
                    _judge(graphdriver, kind)
                    graphdriver.cleanup()
                    graphdriver.use(own)
        except CannotMake as error:
            missing.append(f"{kind}: {_first_line(error)}")
    if missing:
        graphdriver.not_provable(f"not tried on {'; '.join(missing)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@verifies("KRN-012")
def test_driver_in_a_user_namespace(graphdriver: Subject) -> None:
    """Rootless containers: the driver works as root of a user namespace, or Init refuses it."""
    if not graphdriver.source.in_process:
        graphdriver.not_claimed("the driver is a process of its own, which runs where it runs")
    home = graphdriver.home.parent / "rootless"
    command = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    if run_program(graphdriver, [*command, "true"], check=False).returncode:
        graphdriver.not_provable("no user namespaces here: see user.max_user_namespaces")
    command += [sys.executable, "-m", rootless.__name__, graphdriver.source.spec, str(home)]

    done = run_program(graphdriver, command, check=False, text=True, env=importing_as_here())

    if done.returncode == rootless.REFUSED:
        graphdriver.note(f"refused: {done.stdout.strip()}")
        return
    assert done.returncode == 0, f"in a user namespace:\n{done.stdout}{done.stderr[-600:]}"
