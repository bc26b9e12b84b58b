"""ERR: the class of a refusal, on which callers act; SHOULD, for in-process drivers only.

Other requirements test that the call is refused, and that nothing is left.
"""

import io
import os
from collections.abc import Callable
from functools import partial

import pytest

from graphdriver.contract import Capability, Driver
from graphdriver.errors import (
    BadArchive,
    DriverError,
    IncompatibleFS,
    InvalidLayerId,
    LayerExists,
    LayerInUse,
    LayerNotFound,
    MaxDepthExceeded,
    MountOptionsTooLong,
    NotSupported,
    PrerequisitesNotMet,
    QuotaNotSupported,
)
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.restrictions import as_linux_2_6, without_mounting
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import Tree, file
from graphdriver_conformance.suite.support.beside import (
    directory_beside,
    mount_beside,
    option_prefix,
)

IMAGE = Tree.of({"etc/hosts": b"one\n"})
TRY_NEXT = (NotSupported, IncompatibleFS, PrerequisitesNotMet)
_Kind = type[DriverError]


def _assert_class(
    graphdriver: Subject, call: Callable[[], object], what: str, *kinds: _Kind
) -> None:
    """Make a call; if it is refused, the error must be of one of the classes."""
    try:
        call()
    except kinds:
        pass  # a refusal is allowed
    except Exception as error:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise AssertionError(
            f"{what} was refused with {type(error).__name__}, expected {wanted}: {error}"
        ) from error


@verifies("ERR-001")
@pytest.mark.parametrize("id", ["", "a/b", "a\nb", "x" * 300], ids=lambda id: ascii(id)[:12])
def test_bad_id_is_invalid(graphdriver: Subject, id: str) -> None:
    """The empty id is always refused; others may be accepted and confined."""
    if not id:
        error = graphdriver.refuses("create", id)
        assert isinstance(error, InvalidLayerId), f"create('') was refused with {error!r}"
    else:
        _assert_class(graphdriver, partial(graphdriver.create, id), "create", InvalidLayerId)


@verifies("ERR-002")
def test_missing_layer_is_not_found(graphdriver: Subject) -> None:
    """By every verb that must refuse it, for the layer and for the parent."""
    base = graphdriver.build(IMAGE)
    archive = build_archive([entry_of("a", file(b"a"))])
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("create", ("orphan", "nope")),
        ("create_read_write", ("orphan", "nope")),
        ("get", ("nope",)),
        ("get_metadata", ("nope",)),
        ("diff", ("nope", "")),
        ("diff", (base, "nope")),
        ("apply_diff", ("nope", "", io.BytesIO(archive))),
    ]
    for verb, capability in (("changes", Capability.CHANGES), ("diff_size", Capability.DIFF_SIZE)):
        if graphdriver.claims(capability):
            calls += [(verb, ("nope", "")), (verb, (base, "nope"))]
    for verb, arguments in calls:
        error = graphdriver.refuses(verb, *arguments)
        assert isinstance(error, LayerNotFound), f"{verb} was refused with {error!r}"


@verifies("ERR-003")
def test_existing_id_exists(graphdriver: Subject) -> None:
    """A driver may replace the layer instead."""
    id = graphdriver.build(IMAGE)

    create = partial(graphdriver.create, id)
    _assert_class(graphdriver, create, "create of an existing id", LayerExists)


@verifies("ERR-004")
def test_layer_with_children_or_holds_is_in_use(graphdriver: Subject) -> None:
    """A parent, and a held layer."""
    base = graphdriver.build(IMAGE)
    child = graphdriver.new_layer(base, writable=True)
    graphdriver.get(child)

    for id, what in ((base, "remove of a parent"), (child, "remove of a held layer")):
        _assert_class(graphdriver, partial(graphdriver.remove, id), what, LayerInUse)


@verifies("ERR-005")
def test_layer_beyond_the_limit_is_too_deep(graphdriver: Subject) -> None:
    """Docker shows this error to the user."""
    id = graphdriver.new_layer()
    for _ in range(graphdriver.layer_limit):
        id = graphdriver.new_layer(id)

    error = graphdriver.refuses("create", "too-deep", id)

    assert isinstance(error, MaxDepthExceeded), f"create was refused with {error!r}"


@verifies("ERR-006")
def test_label_that_does_not_fit_is_too_long(graphdriver: Subject) -> None:
    """Longer than the page of mount(2)."""
    id = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)

    error = graphdriver.refuses("get", id, "l" * (2 * os.sysconf("SC_PAGE_SIZE")))

    assert isinstance(error, MountOptionsTooLong), f"get was refused with {error!r}"


@verifies("ERR-007")
@pytest.mark.parametrize("kind", ["text", "cut", "hard link to nothing"])
def test_stream_that_is_not_an_archive_is_a_bad_archive(graphdriver: Subject, kind: str) -> None:
    """For every kind of damage."""
    streams = {
        "text": b"this is not an archive\n" * 100,
        "cut": build_archive([entry_of("big", file(b"x" * 3000))])[:1024],
        "hard link to nothing": build_archive([entry_of("h", file(), b"nowhere")]),
    }
    layer = graphdriver.new_layer(graphdriver.build(IMAGE))

    error = graphdriver.refuses("apply_diff", layer, "", io.BytesIO(streams[kind]))

    assert isinstance(error, BadArchive), f"apply_diff was refused with {error!r}"


@verifies("ERR-008")
@pytest.mark.parametrize("host", ["without mounts", "overlay below the home"])
def test_refused_host_lets_a_daemon_go_on(graphdriver: Subject, host: str) -> None:
    """A daemon that chooses a driver tries the next one after three classes only."""
    if host == "without mounts":
        home = graphdriver.home.parent / "other"

        def init() -> Driver:
            return without_mounting(lambda: graphdriver.open_another(home))
    else:
        parts = [directory_beside(graphdriver, name) for name in ("lower", "upper", "work")]
        data = "lowerdir={},upperdir={},workdir={}".format(*parts)
        if graphdriver.environment.facts["userns"] == "true":
            data += ",userxattr"
        home = mount_beside(graphdriver, "overlay", data) / "home"

        def init() -> Driver:
            return graphdriver.open_another(home)

    _assert_class(graphdriver, init, f"Init on a host {host}", *TRY_NEXT)


@verifies("ERR-009")
def test_size_without_quota_is_not_supported(graphdriver: Subject) -> None:
    """On a disk without project quota."""
    if "project_quota" in graphdriver.environment.can:
        home = mount_beside(graphdriver, "tmpfs", "mode=755") / "home"
        graphdriver.use(graphdriver.open_another(home))

    _assert_class(
        graphdriver,
        lambda: graphdriver.create_read_write("limited", "", "", {"size": "16M"}),
        "a size",
        QuotaNotSupported,
    )


@verifies("ERR-010")
def test_old_kernel_is_not_supported(graphdriver: Subject) -> None:
    """uname(2) says 2.6."""
    home = graphdriver.home.parent / "old"

    _assert_class(
        graphdriver,
        lambda: as_linux_2_6(lambda: graphdriver.open_another(home)),
        "Init on Linux 2.6",
        NotSupported,
    )


@verifies("ERR-011")
@pytest.mark.parametrize("option", ["no.such.option=1", "OWN.no_such_option=true", "novalue"])
def test_bad_option_is_a_prerequisite(graphdriver: Subject, option: str) -> None:
    """The class tells the user to check the configuration."""
    home = graphdriver.home.parent / "other"
    given = option.replace("OWN", option_prefix(graphdriver))

    _assert_class(
        graphdriver,
        lambda: graphdriver.open_another(home, [given]),
        f"the option {given}",
        PrerequisitesNotMet,
    )
