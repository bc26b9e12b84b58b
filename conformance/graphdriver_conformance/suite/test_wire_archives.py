"""WIR: archives in the plugin protocol, complete and interrupted, and restarts of the plugin."""

import json
from functools import partial
from pathlib import Path
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.effort import examples, scaled
from graphdriver_conformance.suite.support.raw_plugin import Raw
from graphdriver_conformance.suite.support.threads import all_at_once

LAYER = Tree.of({"a": b"one", "dir/b": b"two" * 3000})
ARCHIVE = build_archive(entry_of(name, LAYER[name]) for name in sorted(LAYER) if name)
# Its last file's data end before the zeros that end the archive, and before tar's own padding.
DATA_END = ARCHIVE.rindex(b"two") + 3
BIG = 48 << 20


def _raw(graphdriver: Subject) -> Raw:
    return Raw(graphdriver.driver, graphdriver.program)


def _apply(id: str, more: str = "") -> bytes:
    """Return the head of an ApplyDiff request."""
    return (
        f"POST /GraphDriver.ApplyDiff?id={id}&parent= HTTP/1.1\r\nHost: x\r\n"
        f"Connection: close\r\n{more}\r\n"
    ).encode()


def _chunked(data: bytes, size: int) -> bytes:
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def _status(answer: bytes) -> int:
    """Return the last status, because an interim 100 may precede it; 0 for none."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    words = lines[-1].split() if lines else []
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _big_layer(graphdriver: Subject) -> str:
    """Create a layer of incompressible blocks: holes would have no data."""
    id = graphdriver.new_layer(writable=True)
    with graphdriver.view(id) as root, (root / "big").open("wb") as big:
        for number in range(BIG >> 20):
            big.write(number.to_bytes(4, "big") * (1 << 18))
    return id


@verifies("WIR-009")
def test_failed_diff_has_another_status_than_200(graphdriver: Subject) -> None:
    """Upstream's own test plugin returns 200 and JSON, which Docker unpacks."""
    reply = _raw(graphdriver).call("GraphDriver.Diff", {"ID": "no-such-layer", "Parent": ""})

    assert reply.status != 200, f"Diff of an unknown layer was answered with {reply}"


@verifies("WIR-010")
def test_diff_streams(graphdriver: Subject) -> None:
    """After the first of 48 MiB the plugin has neither read nor buffered most of them."""
    process = graphdriver.process
    if not Path(f"/proc/{process}/io").exists():
        graphdriver.not_provable("the plugin's process is not visible; start it with plugin+exec")
    id = _big_layer(graphdriver)
    Path(f"/proc/{process}/clear_refs").write_text("5")  # VmHWM is reset
    before = _read_bytes(process), _peak_memory(process)

    with graphdriver.diff(id) as stream:
        first = stream.read(1 << 20)
        read = _read_bytes(process) - before[0]
        length = len(first) + sum(len(chunk) for chunk in iter(lambda: stream.read(1 << 20), b""))

    assert length > BIG, f"the archive has only {length} bytes"
    assert read < BIG // 2, f"{read >> 20} MiB were read before the first was sent"
    kept = _peak_memory(process) - before[1]
    assert kept < BIG // 2, f"the plugin's memory grew by {kept >> 20} MiB"


@verifies("WIR-011")
def test_disconnecting_releases_everything(graphdriver: Subject) -> None:
    """Within a response, and within a request."""
    raw = _raw(graphdriver)
    base = graphdriver.build(LAYER)
    layer = _big_layer(graphdriver)
    child = graphdriver.new_layer(base, writable=True)
    for id, parent in ((layer, ""), (child, ""), (child, base)):
        with graphdriver.diff(id, parent) as stream:
            stream.read(600)
    broken = graphdriver.new_layer(base)
    head = _apply(broken, "Transfer-Encoding: chunked\r\n")

    raw.half_sent(head + b"1000\r\n" + ARCHIVE[:1000])

    assert graphdriver.mounts() == [], "mounts are left after the client hung up"
    for id in (broken, child, layer):
        graphdriver.remove(id)
        assert not graphdriver.exists(id)


@verifies("WIR-012")
@given(size=st.sampled_from([1, 7, 511, 512, 513, 4096, 1 << 20]), expect=st.booleans())
@examples(10)
def test_bodies_of_any_chunks(graphdriver: Subject, size: int, expect: bool) -> None:
    """The same archive each time, which results in the same layer."""
    id = graphdriver.new_layer()
    more = "Transfer-Encoding: chunked\r\n" + ("Expect: 100-continue\r\n" if expect else "")

    answer = _raw(graphdriver).half_sent(_apply(id, more) + _chunked(ARCHIVE, size) + b"0\r\n\r\n")

    assert _status(answer) == 200, f"chunks of {size} bytes were answered with {answer[:200]!r}"
    assert_same_tree(LAYER, graphdriver.tree(id))


@verifies("WIR-012")
def test_body_of_a_length(graphdriver: Subject) -> None:
    """The encoding that all clients except Docker use for a file."""
    id = graphdriver.new_layer()

    reply = _raw(graphdriver).call(f"GraphDriver.ApplyDiff?id={id}&parent=", ARCHIVE)

    assert reply.is_success, f"it was answered with {reply}"
    assert_same_tree(LAYER, graphdriver.tree(id))


@verifies("WIR-013")
@given(cut=st.integers(1, DATA_END - 1), chunk=st.sampled_from([100, 4096, 1 << 20]))
@examples(15)
def test_body_that_ends_early_is_an_error(graphdriver: Subject, cut: int, chunk: int) -> None:
    """Truncated within the data, so that files would be missing."""
    id = graphdriver.new_layer()
    head = _apply(id, "Transfer-Encoding: chunked\r\n")
    body = _chunked(ARCHIVE, chunk)[: cut + 4]

    answer = _raw(graphdriver).half_sent(head + body)

    assert _status(answer) != 200 or b'"Err"' in answer, f"it was answered with {answer[-200:]!r}"
    graphdriver.remove(id)
    assert not graphdriver.exists(id)


@verifies("WIR-014")
@given(id=st.text("abcXYZ019_.-", min_size=1, max_size=20).map(lambda text: f"x{text}"))
@examples(8)
def test_ids_in_the_query_may_be_encoded(graphdriver: Subject, id: str) -> None:
    """`%61` is an a."""
    raw = _raw(graphdriver)
    encoded = "".join(f"%{ord(letter):02X}" for letter in id)
    for written in (id, quote(id, safe=""), encoded):
        try:
            graphdriver.create(id)
            reply = raw.call(f"GraphDriver.ApplyDiff?id={written}&parent=", ARCHIVE)
            assert reply.is_success, f"the id {written} was answered with {reply}"
            assert_same_tree(LAYER, graphdriver.tree(id))
        finally:
            graphdriver.remove(id)


@verifies("WIR-017")
def test_requests_do_not_wait_for_each_other(graphdriver: Subject) -> None:
    """The archive is read in part, while others create, get, put and diff layers."""
    big = _big_layer(graphdriver)
    base = graphdriver.build(LAYER)
    driver = graphdriver.driver

    def live(number: int) -> None:
        id = f"worker-{number}"
        for _ in range(scaled(5)):
            driver.create_read_write(id, base)
            (Path(driver.get(id)) / "own").write_text(id)
            driver.put(id)
            with driver.diff(id, base) as archive:
                assert id.encode() in archive.read(), f"{id} returns the archive of another layer"
            driver.remove(id)

    with graphdriver.diff(big) as stream:
        stream.read(600)
        all_at_once([partial(live, number) for number in range(6)])

    assert_same_tree(LAYER, graphdriver.tree(base))


@verifies("WIR-018")
def test_restarted_plugin_answers_the_same(graphdriver: Subject) -> None:
    """Stopped, then killed with a held layer."""
    if graphdriver.source.one_at_a_time:
        graphdriver.not_provable("the suite did not start this plugin; plugin+exec:COMMAND does")
    base = graphdriver.build(LAYER)
    layer = graphdriver.build(Tree.of({"a": b"changed", "new": b""}), base)
    before = _answers(graphdriver, layer, base)
    first = graphdriver.process

    graphdriver.reopen()
    ended = _answers(graphdriver, layer, base)
    graphdriver.get(layer)
    graphdriver.reopen(cleanup=False)

    assert ended == before, "after a restart its answers differ"
    assert _answers(graphdriver, layer, base) == before, "after a kill its answers differ"
    assert first != graphdriver.process, "the plugin was not started again"


def _answers(graphdriver: Subject, layer: str, base: str) -> dict[str, object]:
    tree = graphdriver.tree(layer)
    return {
        "exists": [graphdriver.exists(id) for id in (layer, base, "no-such-layer")],
        "changes": sorted(graphdriver.changes(layer, base)),
        "size": graphdriver.diff_size(layer, base),
        "metadata": json.dumps(graphdriver.get_metadata(layer), sort_keys=True),
        "tree": sorted((name, tree[name].content) for name in tree),
    }


def _read_bytes(process: int) -> int:
    rows = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(rows["rchar"])


def _peak_memory(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
