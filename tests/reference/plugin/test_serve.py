"""`python -m graphdriver.plugin` as a process, called over its socket as by Docker."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Client(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("plugin", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(os.fspath(self._path))

    def ask(self, call: str, body: object = None) -> Any:
        self.request("POST", f"/{call}", json.dumps(body or {}))
        return json.loads(self.getresponse().read())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Client, "subprocess.Popen[bytes]"]]:
    path = tmp_path / "plugin.sock"
    command = [sys.executable, "-m", "graphdriver.plugin", "vfs", "--socket", os.fspath(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr
    process.stderr.readline()  # printed when the socket listens
    client = Client(path)
    yield client, process
    client.close()
    process.terminate()
    process.wait(60)
    process.stderr.close()


def _archive(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_life_of_a_layer_over_the_socket(served: tuple[Client, object], tmp_path: Path) -> None:
    client, _ = served
    home = tmp_path / "home"

    assert client.ask("Plugin.Activate") == {"Implements": ["GraphDriver"]}
    assert not client.ask("GraphDriver.Init", {"Home": str(home), "Opts": None}).get("Err")
    assert not client.ask("GraphDriver.Create", {"ID": "a", "Parent": ""}).get("Err")
    client.request("POST", "/GraphDriver.ApplyDiff?id=a&parent=", _archive("f", b"data"))
    assert json.loads(client.getresponse().read())["Size"] == 4
    view = client.ask("GraphDriver.Get", {"ID": "a", "MountLabel": ""})["Dir"]
    assert (Path(view) / "f").read_bytes() == b"data"
    assert not client.ask("GraphDriver.Put", {"ID": "a"}).get("Err")
    changes = client.ask("GraphDriver.Changes", {"ID": "a", "Parent": ""})["Changes"]
    assert changes == [{"Path": "/f", "Kind": 1}]
    client.request("POST", "/GraphDriver.Diff", json.dumps({"ID": "a", "Parent": ""}))
    with tarfile.open(fileobj=io.BytesIO(client.getresponse().read())) as archive:
        assert archive.getnames() == ["f"]
    assert client.ask("GraphDriver.Exists", {"ID": "a"})["Exists"]
    assert not client.ask("GraphDriver.Remove", {"ID": "a"}).get("Err")
    assert not client.ask("GraphDriver.Exists", {"ID": "a"})["Exists"]


def test_errors_are_reported_and_the_server_continues(
    served: tuple[Client, object], tmp_path: Path
) -> None:
    client, _ = served
    client.ask("GraphDriver.Init", {"Home": str(tmp_path / "home")})

    assert "no layer nope" in client.ask("GraphDriver.Get", {"ID": "nope"})["Err"]
    assert client.ask("GraphDriver.Create", {"ID": "../x", "Parent": ""})["Err"]
    client.request("POST", "/GraphDriver.Nonsense", "{}")
    assert client.getresponse().status == 404
    client.close()
    assert not client.ask("GraphDriver.Create", {"ID": "a", "Parent": ""}).get("Err")


def _memory(process: int) -> int:
    """Return the peak memory of a process, in bytes."""
    rows = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(row.split()[1]) << 10 for row in rows if row.startswith("VmHWM:"))


def _bigger(count: int) -> Iterator[bytes]:
    """Yield an archive with one file of `count` MiB."""
    info = tarfile.TarInfo("big")
    info.size = count << 20
    yield info.tobuf()
    for number in range(count):
        yield bytes([number]) * (1 << 20)
    yield bytes(1024)


def test_archives_stream_both_ways_at_constant_memory(
    served: tuple[Client, "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    client, process = served
    client.ask("GraphDriver.Init", {"Home": str(tmp_path / "home")})
    client.ask("GraphDriver.Create", {"ID": "a"})
    before = _memory(process.pid)

    client.request("POST", "/GraphDriver.ApplyDiff?id=a&parent=", _bigger(64), encode_chunked=True)
    assert json.loads(client.getresponse().read()) == {"Size": 64 << 20}
    client.request("POST", "/GraphDriver.Diff", json.dumps({"ID": "a"}))
    response = client.getresponse()
    length = sum(len(piece) for piece in iter(lambda: response.read(1 << 20), b""))

    assert length > 64 << 20
    assert _memory(process.pid) - before < 24 << 20


def test_refused_archive_is_read_to_its_end_and_the_connection_goes_on(
    served: tuple[Client, object], tmp_path: Path
) -> None:
    client, _ = served
    client.ask("GraphDriver.Init", {"Home": str(tmp_path / "home")})

    client.request(
        "POST", "/GraphDriver.ApplyDiff?id=nope&parent=", _bigger(8), encode_chunked=True
    )
    assert "no layer nope" in json.loads(client.getresponse().read())["Err"]

    assert client.ask("GraphDriver.Exists", {"ID": "nope"}) == {"Exists": False}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_next_process_goes_on_without_init(
    served: tuple[Client, "subprocess.Popen[bytes]"], tmp_path: Path, number: int
) -> None:
    client, process = served
    client.ask("GraphDriver.Init", {"Home": str(tmp_path / "home")})
    client.ask("GraphDriver.Create", {"ID": "a"})
    client.close()
    process.send_signal(number)
    process.wait(60)
    path = tmp_path / "plugin.sock"
    assert path.with_name("plugin.sock.init").stat().st_mode & 0o777 == 0o600

    found = {}
    for driver in ("vfs", "overlay2"):
        command = [sys.executable, "-m", "graphdriver.plugin", driver, "--socket", os.fspath(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as after:
            assert after.stderr
            after.stderr.readline()
            found[driver] = client.ask("GraphDriver.Exists", {"ID": "a"})
            client.close()
            after.terminate()

    assert found["vfs"] == {"Exists": True}
    assert "call GraphDriver.Init first" in found["overlay2"]["Err"], "another driver's Init"


def test_running_calls_end_before_the_process(
    served: tuple[Client, "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    client, process = served
    client.ask("GraphDriver.Init", {"Home": str(tmp_path / "home")})
    client.ask("GraphDriver.Create", {"ID": "a"})
    client.request("POST", "/GraphDriver.ApplyDiff?id=a&parent=", _bigger(8), encode_chunked=True)
    client.getresponse().read()
    idle = Client(tmp_path / "plugin.sock")
    idle.connect()
    client.request("POST", "/GraphDriver.Diff", json.dumps({"ID": "a"}))
    response = client.getresponse()
    first = response.read(1000)

    process.send_signal(signal.SIGTERM)
    while (tmp_path / "plugin.sock").exists():
        os.sched_yield()
    whole = first + response.read()

    assert process.wait(60) == 0
    idle.close()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        assert [member.size for member in archive] == [8 << 20]


def test_termination_removes_the_socket(
    served: tuple[Client, "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    client, process = served
    client.ask("Plugin.Activate")
    client.close()

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 0
    assert not (tmp_path / "plugin.sock").exists()


@pytest.mark.parametrize("length", ["-1", "1x", "", "+5", "1, 2", "9" * 30])
def test_length_that_is_none_ends_the_connection(
    served: tuple[Client, object], tmp_path: Path, length: str
) -> None:
    """The body must not be parsed as the next request."""
    client, _ = served
    pipelined = b"POST /GraphDriver.Create HTTP/1.1\r\nContent-Length: 10\r\n\r\n" + b'{"ID":"a"}'
    client.ask("GraphDriver.Init", {"Home": str(tmp_path / "home")})
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(os.fspath(client._path))
        head = f"POST /GraphDriver.Cleanup HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
        raw.sendall(head.encode() + pipelined)
        answer = b""
        while piece := raw.recv(1 << 16):
            answer += piece

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert client.ask("GraphDriver.Exists", {"ID": "a"}) == {"Exists": False}
