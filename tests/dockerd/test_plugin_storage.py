"""A real Docker on `graphdriver serve overlay2`: common commands, restarts and kills."""

import io
import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd.engine import Engine, root_file_system

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root: it runs dockerd"),
    pytest.mark.skipif(not shutil.which("dockerd"), reason="needs dockerd, of docker.io"),
]

DOCKERFILE = b"""
FROM base
RUN echo new > /data/old && rm /data/gone && mkdir /data/dir && echo x > /data/dir/x
RUN ln /data/dir/x /data/dir/y && mv /data/dir/x /data/dir/z && ln -s z /data/dir/l
CMD ["/bin/sh", "-c", "cat /data/old; ls /data /data/dir"]
"""
SHOWN = "new\n/data:\ndir\nold\n\n/data/dir:\nl\ny\nz\n"


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine("overlay2")
    try:
        made.start_plugin()
        made.start()
        made.docker("import", "-", "base", feed=root_file_system())
        yield made
    finally:
        made.close()


def _context(dockerfile: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        archive.addfile(info, io.BytesIO(dockerfile))
    return buffer.getvalue()


def _run(engine: Engine, *arguments: str) -> str:
    return engine.docker("run", "--network=none", *arguments).decode()


def test_import_build_run_diff_commit_save_load_and_prune(engine: Engine) -> None:
    docker = engine.docker
    assert engine.name in docker("info", "-f", "{{.Driver}}").decode()

    docker("build", "--network=none", "-t", "built", "-", feed=_context(DOCKERFILE))
    assert _run(engine, "--rm", "built") == SHOWN

    _run(engine, "--name=work", "built", "sh", "-c", "rm -r /data/dir; echo more > /data/more")
    changes = set(docker("diff", "work").decode().splitlines())
    assert {c for c in changes if "/data" in c} == {"C /data", "D /data/dir", "A /data/more"}
    docker("commit", "work", "committed")
    assert _run(engine, "--rm", "committed", "ls", "/data") == "more\nold\n"

    saved = docker("save", "committed")
    docker("rm", "work")
    docker("rmi", "committed", "built")
    docker("load", feed=saved)
    assert _run(engine, "--rm", "committed", "cat", "/data/more") == "more\n"

    docker("rmi", "committed", "base")
    docker("system", "prune", "--all", "--force")
    assert engine.layers() == [], "layers are left although no image is"
    assert [row for row in engine.mounts() if row.startswith(str(engine.home))] == []


def test_daemon_is_restarted(engine: Engine) -> None:
    _run(engine, "--name=work", "base", "sh", "-c", "echo kept >> /data/old")

    engine.stop()
    engine.start()

    assert b"base" in engine.docker("images")
    assert "kept" in engine.docker("cp", "work:/data/old", "-").decode()
    engine.docker("start", "--attach", "work")
    archive = engine.docker("cp", "work:/data/old", "-")
    with tarfile.open(fileobj=io.BytesIO(archive)) as copied:
        member = copied.extractfile("old")
        assert member
        assert member.read() == b"old\nkept\nkept\n"
    engine.docker("rm", "work")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_plugin_is_restarted_while_a_container_runs(engine: Engine, number: int) -> None:
    _run(engine, "--detach", "--name=work", "base", "sleep", "1000")
    engine.docker("exec", "work", "sh", "-c", "echo before > /data/new")
    process = engine.docker("inspect", "-f", "{{.State.Pid}}", "work").decode().strip()

    engine.end_plugin(number)
    # docker exec calls the plugin; the container itself does not.
    with Path(f"/proc/{process}/root/data/new").open("a") as new:
        new.write("between\n")
    engine.start_plugin()

    assert engine.docker("exec", "work", "cat", "/data/new") == b"before\nbetween\n"
    assert b"A /data/new" in engine.docker("diff", "work").splitlines()
    assert _run(engine, "--rm", "base", "cat", "/data/old") == "old\n"
    engine.docker("restart", "--time=0", "work")
    assert engine.docker("exec", "work", "cat", "/data/new") == b"before\nbetween\n"
    engine.docker("rm", "--force", "work")
    assert [row for row in engine.mounts() if row.startswith(str(engine.home))] == []


def test_containers_start_side_by_side(engine: Engine) -> None:
    shown: dict[int, str] = {}

    def run(number: int) -> None:
        script = f"echo {number} > /data/old; cat /data/old"
        shown[number] = _run(engine, "--rm", "base", "sh", "-c", script)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert shown == {number: f"{number}\n" for number in range(6)}
    assert [row for row in engine.mounts() if row.startswith(str(engine.home))] == []
