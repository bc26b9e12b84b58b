"""Missing, malformed, hanging and crashing plugins: each is one clear error, without a hang."""

import io
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphdriver.contract import Change, ChangeKind
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers.plugin import process as plugin_process
from graphdriver_conformance.drivers.plugin.driver import PluginDriver
from graphdriver_conformance.drivers.resolve import BadSpec, DriverSource, resolve

REFUSALS = (DriverError, OSError)
pytest_plugins = ["pytester"]

# A plugin that answers every call with {}, except CALL, which it answers according to HOW.
BROKEN = """
import http.server, json, os, socketserver, sys, threading

HOW, CALL = sys.argv[1:3]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = self.path[1:].partition("?")[0].partition(".")[2]
        answer = {"Implements": ["GraphDriver"]} if call == "Activate" else {}
        data = json.dumps(answer).encode()
        if call == CALL:
            data = self.broken(data)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def broken(self, data):
        if HOW == "hang":
            threading.Event().wait()
        if HOW == "die":
            print("going down", flush=True)
            os.kill(os.getpid(), 9)
        if HOW == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\n")
            while not threading.Event().wait(0.1):
                self.wfile.write(b"X: y\\r\\n")
        if HOW == "junk":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\\r\\n")
        if HOW == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
            self.wfile.write(b"5\\r\\nab")
            self.close_connection = True
            sys.exit()
        return HOW.encode()

    def address_string(self):
        return "client"

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

Server(os.environ["GRAPHDRIVER_SOCKET"], Handler).serve_forever()
"""

Plugin = Callable[..., str]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Return a function that creates the spec of a plugin with a failure in one call."""
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    monkeypatch.setenv("GRAPHDRIVER_DEADLINE", "2")

    def spec(how: str, call: str) -> str:
        return f"plugin+exec:{sys.executable} {script} {shlex.quote(how)} {call}"

    return spec


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[Callable[[str], DriverSource]]:
    """Return a function that resolves a spec; processes that it starts are ended afterwards."""
    resolved: list[DriverSource] = []

    def resolving(spec: str) -> DriverSource:
        resolved.append(resolve(spec))
        return resolved[-1]

    yield resolving
    for one in resolved:
        one.processes.close()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("plugin+exec:", "there is no command"),
        ("plugin+exec:no-such-program x", "there is no program no-such-program in PATH"),
        ("plugin+exec:'", "No closing quotation"),
        ("plugin+unix:relative.sock", "name the socket as plugin.unix:///path/of.sock"),
    ],
)
def test_incomplete_spec_of_a_plugin_is_one_sentence(spec: str, words: str) -> None:
    with pytest.raises(BadSpec, match=words):
        resolve(spec)


def test_socket_without_a_listener(
    pytester: pytest.Pytester, source: Callable[[str], DriverSource], tmp_path: Path
) -> None:
    with pytest.raises(REFUSALS, match=r"Plugin.Activate: nothing listens there; start the plugin"):
        source(f"plugin+unix://{tmp_path}/none.sock").make(tmp_path / "home", ())


@pytest.mark.parametrize(
    ("script", "timeout", "words"),
    [
        (
            "print('no root'); raise SystemExit(3)",
            30.0,
            r"ended with status 3 \(its last output: no root\)",
        ),
        ("import time; time.sleep(60)", 1.0, "does not listen on .GRAPHDRIVER_SOCKET after 1 s"),
    ],
)
def test_command_that_does_not_listen(
    source: Callable[[str], DriverSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    timeout: float,
    words: str,
) -> None:
    monkeypatch.setenv("GRAPHDRIVER_DEADLINE", "1")
    monkeypatch.setattr(plugin_process, "_LEAST_START", timeout)
    spec = f"plugin+exec:{sys.executable} -c {shlex.quote(script)}"

    with pytest.raises(REFUSALS, match=words):
        source(spec).make(tmp_path / "home", ())


@pytest.mark.parametrize(
    ("how", "call", "words"),
    [
        ("hang", "Activate", "Plugin.Activate: no answer within 2 s"),
        ("junk", "Activate", "Plugin.Activate: the answer is not HTTP .BadStatusLine"),
        ("{}", "Activate", r"implements \[\]; it must be a GraphDriver"),
        ("[]", "Activate", "Plugin.Activate answered with b'\\[\\]'; answer with a JSON object"),
        ("hello", "Activate", "Plugin.Activate answered with b'hello'"),
        ('{"Err": "disk full"}', "Init", "disk full"),
        (
            "die",
            "Init",
            "Init: the plugin dropped the connection .* killed by signal 9 .*going down",
        ),
    ],
)
def test_plugin_that_cannot_be_introduced(
    source: Callable[[str], DriverSource],
    broken: Plugin,
    tmp_path: Path,
    how: str,
    call: str,
    words: str,
) -> None:
    with pytest.raises(REFUSALS, match=words):
        source(broken(how, call)).make(tmp_path / "home", ())


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("hang", "GraphDriver.Get: no answer within 2 s"),
        ("drip", "GraphDriver.Get: no answer within 2 s"),
        ("die", "GraphDriver.Get: the plugin dropped .* killed by signal 9"),
        ("junk", "GraphDriver.Get: the answer is not HTTP"),
        ("cut", "GraphDriver.Get: the answer is not HTTP .IncompleteRead"),
        ("{}", "GraphDriver.Get answered without Dir"),
        ('{"Dir": 7}', "GraphDriver.Get answered with Dir = 7; it has to be a str"),
        ('{"Dir": "/no/such"}', "in a mount namespace of its own"),
    ],
)
def test_call_that_goes_wrong_is_named(
    source: Callable[[str], DriverSource], broken: Plugin, tmp_path: Path, how: str, words: str
) -> None:
    driver = source(broken(how, "Get")).make(tmp_path / "home", ())

    with pytest.raises((OSError, DriverError), match=words):
        driver.get("layer")


@pytest.mark.parametrize(
    ("call", "answer", "verb"),
    [
        ("Status", '{"Status": [1]}', lambda d: d.status()),
        ("Changes", '{"Changes": [{"Path": "/x"}]}', lambda d: d.changes("a")),
        ("Changes", '{"Changes": [{"Path": "/x", "Kind": 9}]}', lambda d: d.changes("a")),
        ("Changes", '{"Changes": {}}', lambda d: d.changes("a")),
        ("DiffSize", '{"Size": true}', lambda d: d.diff_size("a")),
        ("Exists", '{"Exists": "no"}', lambda d: d.exists("a")),
        ("GetMetadata", '{"Metadata": []}', lambda d: d.get_metadata("a")),
    ],
)
def test_answer_of_another_form_is_shown(
    source: Callable[[str], DriverSource],
    broken: Plugin,
    tmp_path: Path,
    call: str,
    answer: str,
    verb: Callable[[PluginDriver], object],
) -> None:
    driver = source(broken(answer, call)).make(tmp_path / "home", ())

    with pytest.raises(DriverError, match=f"GraphDriver.{call} answered with"):
        verb(driver)  # type: ignore[arg-type]


def test_archive_that_is_cut_short_raises(
    source: Callable[[str], DriverSource], broken: Plugin, tmp_path: Path
) -> None:
    driver = source(broken("cut", "Diff")).make(tmp_path / "home", ())

    with driver.diff("layer") as stream, pytest.raises(OSError, match=r"GraphDriver\.Diff"):
        stream.read()


def test_deadline_of_a_verb_does_not_depend_on_earlier_ones(
    source: Callable[[str], DriverSource],
    broken: Plugin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = source(broken("hang", "Get")).make(tmp_path / "home", ())
    reported: list[str] = []
    for _ in range(3):
        with pytest.raises(OSError) as caught:
            driver.get("layer")
        reported.append(str(caught.value.strerror))
        monkeypatch.setenv("GRAPHDRIVER_DEADLINE", "2.5")

    assert [text.rpartition("within ")[2] for text in reported] == ["2 s", "2.5 s", "2.5 s"]


def test_hanging_plugin_is_a_violation_that_names_the_verb(
    pytester: pytest.Pytester, broken: Plugin
) -> None:
    result = pytester.runpytest_subprocess(
        f"--driver={broken('hang', 'Create')}", "--requirement=LIF-001", "-p", "no:cacheprovider"
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["VIOLATED  LIF-001*", "*GraphDriver.Create: no answer within 2 s*"]
    )


def test_stream_that_breaks_in_the_suite_is_no_violation(
    source: Callable[[str], DriverSource], tmp_path: Path
) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "the disk it came from")

    driver = source("plugin+exec:graphdriver serve vfs").make(tmp_path / "home", ())
    driver.create("a")

    with pytest.raises(OSError, match="the disk it came from"):
        driver.apply_diff("a", "", Breaking())
    assert driver.changes("a") == []


def test_process_is_kept_for_the_next_home_and_ends_with_the_run(
    source: Callable[[str], DriverSource], tmp_path: Path
) -> None:
    found = source("plugin+exec:graphdriver serve vfs")
    first = found.make(tmp_path / "one", ())
    process = found.processes.process_of(first)
    first.create("a")
    first.cleanup()
    found.processes.release(first)

    second = found.make(tmp_path / "two", ())
    third = found.make(tmp_path / "one", ())

    assert found.processes.process_of(second) == process
    assert process != found.processes.process_of(third), "two drivers at once share a process"
    assert not second.exists("a")
    assert third.exists("a")
    others = [found.processes.process_of(one) for one in (second, third)]
    found.processes.close()
    assert [os.path.exists(f"/proc/{one}") for one in others] == [False, False]


@contextmanager
def _listening(driver: str, path: Path) -> Iterator[int]:
    """Serve `driver` on `path` for the duration of the block; yield the process."""
    command = [sys.executable, "-m", "graphdriver.plugin", driver, "--socket", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            process.stderr.readline()  # printed when the socket listens
            yield process.pid
        finally:
            process.terminate()


def test_plugin_that_listens_takes_turns(
    source: Callable[[str], DriverSource], tmp_path: Path
) -> None:
    path = tmp_path / "x.sock"
    with _listening("vfs", path) as process:
        found = source(f"plugin+unix://{path}")
        one, two = (found.make(tmp_path / name, ()) for name in ("one", "two"))
        one.create("a")
        two.create("b")

        assert [one.exists(id) for id in "ab"] == [True, False]
        assert [two.exists(id) for id in "ab"] == [False, True]
        assert found.processes.process_of(one) == process
        assert str(one) == "x"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: the plugin mounts where we are")
def test_mounts_of_a_plugin_that_listens_are_seen(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    path = tmp_path / "x.sock"
    with _listening("overlay2", path):
        result = pytester.runpytest_subprocess(
            f"--driver=plugin+unix://{path}", "-p", "no:cacheprovider", "-p", "no:xdist",
            "--requirement=WIR-021", "--requirement=MNT-004", "--requirement=WIR-018",
        )  # fmt: skip

    result.stdout.fnmatch_lines(["*not provable here: WIR-018*", "MUST*2 met  1 not-provable*"])
    assert result.ret == 0


def test_many_threads_use_one_plugin(source: Callable[[str], DriverSource], tmp_path: Path) -> None:
    driver = source("plugin+exec:graphdriver serve vfs").make(tmp_path / "home", ())
    driver.create("a")
    (driver.get("a") / "file").write_bytes(b"x" * (1 << 20))
    seen: list[object] = []

    def use() -> None:
        with driver.diff("a") as stream:
            seen.append(len(stream.read()) > 1 << 20)
        seen.append([Change(b"/file", ChangeKind.ADD)] == driver.changes("a"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [True] * 16


def test_plugin_that_listens_is_not_for_several_workers(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    pytest.importorskip("xdist")

    result = pytester.runpytest_subprocess(f"--driver=plugin+unix://{tmp_path}/x.sock", "-n2")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*serves one home at a time*"])


def test_output_of_a_plugin_that_dies_is_in_the_violation_and_kept(
    pytester: pytest.Pytester, broken: Plugin
) -> None:
    pytester.runpytest_subprocess(
        f"--driver={broken('die', 'Create')}", "--requirement=LIF-001", "-p", "no:cacheprovider",
        "--graphdriver-report=r.json", "--graphdriver-keep=kept",
    )  # fmt: skip

    rows = json.loads((pytester.path / "r.json").read_text())["requirements"]
    row = next(row for row in rows if row["id"] == "LIF-001")
    assert (row["outcome"], row["reason"]) == ("violated", "process-died")
    assert row["output"][-1] == "going down"
    assert (Path(row["kept"]) / "plugin.log").read_text().endswith("going down\n")
