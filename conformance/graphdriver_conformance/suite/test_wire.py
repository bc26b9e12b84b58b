"""WIR: requests and responses of the plugin protocol."""

import http.client
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.effort import examples, scaled
from graphdriver_conformance.suite.support.raw_plugin import Raw, Reply

IMAGE = Tree.of({"etc/hosts": b"one\n"})
NO_LAYER = "no-such-layer"


def _raw(graphdriver: Subject) -> Raw:
    return Raw(graphdriver.driver, graphdriver.program)


def _succeeds(reply: Reply, what: str) -> Reply:
    assert reply.is_success, f"{what} was answered with {reply}"
    return reply


@verifies("WIR-001")
def test_activation_says_graphdriver(graphdriver: Subject) -> None:
    """Before and after Init; the daemon sends it again after a restart."""
    raw = _raw(graphdriver)
    graphdriver.new_layer()

    for _ in range(3):
        reply = _succeeds(raw.call("Plugin.Activate", b""), "Plugin.Activate")
        implemented = (reply.json or {}).get("Implements")
        assert isinstance(implemented, list), f"it answered {reply}"
        assert "GraphDriver" in implemented, f"it answered {reply}"


@verifies("WIR-002")
@given(
    rest=st.fixed_dictionaries(
        {},
        optional={
            "Opts": st.sampled_from([None, []]),
            "UIDMaps": st.none(),
            "GIDMaps": st.none(),
        },
    ),
)
@examples(8)
def test_init_takes_every_dockers_body(graphdriver: Subject, rest: dict[str, object]) -> None:
    """1.12 sends Home and Opts only; Go encodes an empty list as null."""
    raw = _raw(graphdriver)
    home = graphdriver.home.parent / "other"
    raw.forget_init()

    _succeeds(raw.call("GraphDriver.Init", {"Home": str(home), **rest}), f"Init with {rest}")

    _succeeds(raw.call("GraphDriver.Status"), "Status after it")


@verifies("WIR-002")
def test_init_takes_id_maps(graphdriver: Subject) -> None:
    """In snake case, which Docker sends, although its documentation differs."""
    if not graphdriver.claims(Capability.IDMAP):
        graphdriver.not_claimed("the driver does not claim idmap")
    raw = _raw(graphdriver)
    maps = [{"container_id": 0, "host_id": 100000, "size": 65536}]
    home = graphdriver.home.parent / "mapped"
    raw.forget_init()

    body = {"Home": str(home), "Opts": None, "UIDMaps": maps, "GIDMaps": maps}
    _succeeds(raw.call("GraphDriver.Init", body), "Init with maps")
    _succeeds(raw.call("GraphDriver.Create", {"ID": "a"}), "Create")
    reply = _succeeds(raw.call("GraphDriver.Get", {"ID": "a"}), "Get")
    view = (reply.json or {}).get("Dir")
    assert isinstance(view, str), f"Get was answered with {reply}, without a path in Dir"

    owner = Path(view).stat().st_uid
    _succeeds(raw.call("GraphDriver.Put", {"ID": "a"}), "Put")
    assert owner == 100000, "the layer's root is not owned by the mapped root"


@verifies("WIR-003")
def test_success_has_status_200_and_no_error(graphdriver: Subject) -> None:
    """Every verb once."""
    raw = _raw(graphdriver)
    calls: list[tuple[str, object]] = [
        ("GraphDriver.Create", {"ID": "base"}),
        ("GraphDriver.CreateReadWrite", {"ID": "top", "Parent": "base"}),
        ("GraphDriver.Get", {"ID": "top"}),
        ("GraphDriver.Put", {"ID": "top"}),
        ("GraphDriver.Exists", {"ID": "top"}),
        ("GraphDriver.Status", {}),
        ("GraphDriver.GetMetadata", {"ID": "top"}),
        ("GraphDriver.Changes", {"ID": "top", "Parent": "base"}),
        ("GraphDriver.DiffSize", {"ID": "top", "Parent": "base"}),
        ("GraphDriver.Remove", {"ID": "top"}),
        ("GraphDriver.Cleanup", {}),
    ]
    for method, body in calls:
        _succeeds(raw.call(method, body), method)


@verifies("WIR-004")
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("Create", {"ID": "orphan", "Parent": NO_LAYER}),
        ("CreateReadWrite", {"ID": "orphan", "Parent": NO_LAYER}),
        ("Get", {"ID": NO_LAYER}),
        ("Changes", {"ID": NO_LAYER, "Parent": ""}),
        ("DiffSize", {"ID": NO_LAYER, "Parent": ""}),
        ("ApplyDiff?id=no-such-layer&parent=", b"\0" * 1024),
    ],
)
def test_failure_is_reported(graphdriver: Subject, method: str, body: object) -> None:
    """The response is the caller's only information."""
    reply = _raw(graphdriver).call(f"GraphDriver.{method}", body)

    assert not reply.is_success, f"{method} of an unknown layer was answered with {reply}"


@verifies("WIR-005")
@pytest.mark.parametrize("method", ["GraphDriver.NoSuchVerb", "VolumeDriver.List", "x"])
def test_unknown_method_is_not_found(graphdriver: Subject, method: str) -> None:
    """Newer daemons use more methods."""
    reply = _raw(graphdriver).call(method, {})

    assert reply.status == 404, f"{method} was answered with {reply}"


@verifies("WIR-006")
@given(
    method=st.sampled_from(["Create", "Get", "Changes", "Remove", "Exists"]),
    body=st.one_of(
        st.sampled_from([b"{", b"[]", b'"x"', b"\xff\xfe", b'{"ID": 5}', b'{"ID": ["a"]}', b"7"]),
        st.sampled_from([b'{"ID": "a"', b"[" * 5000, b'{"ID": {"ID": "a"}}', b"\0", b"nul"]),
    ),
)
@examples(25)
def test_malformed_bodies_are_refused_and_the_plugin_continues(
    graphdriver: Subject, method: str, body: bytes
) -> None:
    """Also for Exists, whose result false would be accepted."""
    raw = _raw(graphdriver)

    reply = raw.call(f"GraphDriver.{method}", body)

    assert not reply.is_success, f"{method} of {body[:20]!r} was answered with {reply}"
    _succeeds(raw.call("GraphDriver.Status"), "Status after it")


@verifies("WIR-007")
def test_parent_may_be_left_out(graphdriver: Subject) -> None:
    """omitempty omits empty fields."""
    raw = _raw(graphdriver)
    id = graphdriver.build(IMAGE)

    _succeeds(raw.call("GraphDriver.Create", {"ID": "none"}), "Create without Parent")
    _succeeds(raw.call("GraphDriver.Create", {"ID": "empty", "Parent": ""}), "with an empty one")
    for method in ("Changes", "DiffSize"):
        without = raw.call(f"GraphDriver.{method}", {"ID": id})
        empty = raw.call(f"GraphDriver.{method}", {"ID": id, "Parent": ""})
        assert without.json == empty.json, (
            f"{method} has different results for a missing and an empty Parent"
        )
    assert raw.call("GraphDriver.Diff", {"ID": id}).status == 200, "Diff without Parent failed"


@verifies("WIR-008")
@given(
    extra=st.dictionaries(
        st.sampled_from(["Future", "future_field", "X", "ParentID", "Labels"]),
        st.sampled_from([None, 1, "x", [1], {"a": {}}]),
        min_size=1,
    )
)
@examples(8)
def test_unknown_fields_are_ignored(graphdriver: Subject, extra: dict[str, object]) -> None:
    """Newer daemons send more fields."""
    raw = _raw(graphdriver)
    id = graphdriver.new_id()

    for method in ("Create", "Exists", "Changes", "Remove"):
        reply = raw.call(f"GraphDriver.{method}", {"ID": id, **extra})
        _succeeds(reply, f"{method} with {extra}")


@verifies("WIR-015")
def test_capabilities_have_their_form(graphdriver: Subject) -> None:
    """Docker before 17.06 did not call it, so 404 is accepted."""
    reply = _raw(graphdriver).call("GraphDriver.Capabilities", {})

    if reply.status != 404:
        _succeeds(reply, "Capabilities")
        declared = (reply.json or {}).get("Capabilities", {})
        assert isinstance(declared, dict), f"Capabilities was answered with {reply}"
        exact = declared.get("ReproducesExactDiffs", False)
        assert isinstance(exact, bool), f"ReproducesExactDiffs is {exact!r}"


@verifies("WIR-016")
def test_exists_answers_yes_or_no(graphdriver: Subject) -> None:
    """Go omits a false value."""
    raw = _raw(graphdriver)
    id = graphdriver.new_layer()

    yes = _succeeds(raw.call("GraphDriver.Exists", {"ID": id}), "Exists of a layer")
    no = _succeeds(raw.call("GraphDriver.Exists", {"ID": NO_LAYER}), "Exists of no layer")

    assert (yes.json or {}).get("Exists") is True, f"Exists of a layer was answered with {yes}"
    assert (no.json or {}).get("Exists") in (None, False), f"Exists of no layer: {no}"


@verifies("WIR-019")
def test_connections_are_kept(graphdriver: Subject) -> None:
    """Ten requests on one connection, while twenty others are idle."""
    raw = _raw(graphdriver)
    idle = [raw.connection() for _ in range(20)]
    busy = raw.connection()
    try:
        for connection in idle:
            connection.connect()
        for number in range(10):
            _succeeds(raw.ask(busy, "GraphDriver.Status"), f"request {number}")
            assert busy.sock is not None, f"the plugin closed the connection after request {number}"
    except (http.client.HTTPException, OSError) as error:
        raise AssertionError(f"a second request on one connection failed: {error}") from error
    finally:
        for connection in (busy, *idle):
            connection.close()


@verifies("WIR-020")
def test_another_home_is_another_set_of_layers_or_ignored(graphdriver: Subject) -> None:
    """A layer of one home is looked up in another, and in the first again."""
    raw = _raw(graphdriver)
    id = graphdriver.new_layer()
    found = []
    for home in (graphdriver.home.parent / "other", graphdriver.home):
        raw.forget_init()
        _succeeds(raw.call("GraphDriver.Init", {"Home": str(home), "Opts": None}), "Init")
        reply = _succeeds(raw.call("GraphDriver.Exists", {"ID": id}), "Exists")
        found.append(bool((reply.json or {}).get("Exists")))

    assert found[1], "after another Home the first one's layer is lost"
    graphdriver.note(f"another Home is {'ignored' if found[0] else 'another set of layers'}")


@verifies("WIR-021")
def test_path_of_get_is_visible_to_the_caller(graphdriver: Subject) -> None:
    """An absolute path with the parent's files, visible to the suite."""
    raw = _raw(graphdriver)
    id = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)

    reply = _succeeds(raw.call("GraphDriver.Get", {"ID": id}), "Get")
    view = Path(str((reply.json or {}).get("Dir", "")))
    seen = view.is_absolute() and (view / "etc/hosts").is_file()
    raw.call("GraphDriver.Put", {"ID": id})

    elsewhere = _namespace(graphdriver.process) != _namespace(0)
    why = "the plugin is in another mount namespace; run it in this one" if elsewhere else ""
    assert seen, f"Get was answered with {str(view)!r}, where the parent's files are not; {why}"


@verifies("WIR-022")
def test_path_that_is_not_utf8_is_not_another_path(graphdriver: Subject) -> None:
    """Names are bytes, JSON's strings are not."""
    raw = _raw(graphdriver)
    id = graphdriver.build(Tree.of({b"caf\xe9": b"x"}))

    reply = raw.call("GraphDriver.Changes", {"ID": id, "Parent": ""})

    rows = _rows(reply) if reply.is_success else []
    paths = [str(row.get("Path")).encode("utf-8", "surrogateescape") for row in rows]
    assert not reply.is_success or b"/caf\xe9" in paths, f"Changes names {paths}"


@verifies("WIR-023")
def test_thousands_of_changes_are_returned(graphdriver: Subject) -> None:
    """Ten thousand files, in directories of a thousand."""
    count = scaled(10_000)
    id = graphdriver.new_layer(writable=True)
    with graphdriver.view(id) as root:
        for number in range(count):
            above = root / str(number // 1000)
            if number % 1000 == 0:
                above.mkdir()
            (above / str(number)).touch()

    reply = _succeeds(
        _raw(graphdriver).call("GraphDriver.Changes", {"ID": id, "Parent": ""}), "Changes"
    )

    named = {str(row.get("Path")) for row in _rows(reply)}
    wanted = {f"/{number // 1000}/{number}" for number in range(count)}
    missing = wanted - named
    assert not missing, f"{len(missing)} of {count} paths are missing"


@verifies("WIR-024")
@given(
    accept=st.sampled_from(["", ".v1", ".v1.1", ".v1.2"]),
    content=st.sampled_from([None, "application/json", "application/vnd.docker.plugins.v1.1+json"]),
    host=st.sampled_from(["plugin.moby.localhost", "", "x.sock"]),
)
@examples(10)
def test_headers_of_every_version(
    graphdriver: Subject, accept: str, content: str | None, host: str
) -> None:
    """The daemon sends v1.2, the documentation v1, and some clients other types."""
    headers = {"Accept": f"application/vnd.docker.plugins{accept}+json" if accept else "*/*"}
    headers |= {"Content-Type": content} if content else {}

    reply = _raw(graphdriver).call("GraphDriver.Status", b"{}", {**headers, "Host": host})

    _succeeds(reply, f"a request with {json.dumps(headers)}")


def _rows(reply: Reply) -> list[dict[str, object]]:
    """Return the rows of a response to Changes; null is Go's empty list."""
    rows = (reply.json or {}).get("Changes") or []
    is_well_formed = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    assert is_well_formed, f"Changes was answered with {str(reply)[:200]}, expected a list of rows"
    return rows


def _namespace(process: int) -> str:
    try:
        return str(Path(f"/proc/{process or 'self'}/ns/mnt").readlink())
    except OSError:
        return ""
