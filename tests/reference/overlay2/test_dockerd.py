"""One home, two drivers: dockerd's overlay2 and the reference overlay2. Requires docker.io."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphdriver.overlay2 import Driver
from graphdriver.overlay2.fsck import findings

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root: it runs dockerd"),
    pytest.mark.skipif(not shutil.which("dockerd"), reason="needs dockerd, of docker.io"),
]
Docker = Callable[..., bytes]


@contextmanager
def _daemon(base: Path) -> Iterator[Docker]:
    """Run dockerd without network on `base`/root for the duration of the block."""
    address = f"unix://{base}/sock"
    command = ["dockerd", "--storage-driver=overlay2", "--iptables=false", "--bridge=none"]
    command += ["--data-root", f"{base}/root", "--exec-root", f"{base}/exec"]
    command += ["--pidfile", f"{base}/pid", "-H", address]

    def docker(*arguments: str, feed: bytes = b"") -> bytes:
        done = subprocess.run(
            ["docker", "-H", address, *arguments], input=feed, capture_output=True, check=False
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
        return done.stdout

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        message = b""
        for line in process.stderr:
            message = line
            if b"API listen on" in line:
                break
        else:
            process.wait()
            pytest.skip(f"dockerd does not start here: {message.decode()}")
        try:
            yield docker
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def base() -> Iterator[Path]:
    """Yield a directory with a short path: a unix socket has at most 107 bytes."""
    made = Path("/tmp") / f"graphdriver-dockerd-{os.getpid()}"
    made.mkdir()
    yield made
    subprocess.run(
        ["umount", "--recursive", "--lazy", made / "root"], check=False, capture_output=True
    )
    shutil.rmtree(made)


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _exported(docker: Docker, container: str) -> dict[str, bytes]:
    """Return the files of this test in a container's view, as dockerd exports them."""
    with tarfile.open(fileobj=io.BytesIO(docker("export", container))) as archive:
        opened = {m.name: archive.extractfile(m) for m in archive if m.name.startswith("data/")}
    return {name: file.read() for name, file in opened.items() if file}


def _viewed(driver: Driver, id: str) -> dict[str, bytes]:
    view = driver.get(id)
    try:
        files = [path for path in (view / "data").rglob("*") if path.is_file()]
        return {str(path.relative_to(view)): path.read_bytes() for path in files}
    finally:
        driver.put(id)


def _upper_id(docker: Docker, what: str) -> str:
    upper = docker("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", what).decode().strip()
    return Path(upper).parent.name


def test_each_reads_the_others_layers(base: Path) -> None:
    old = {"data/kept": b"kept", "data/changed": b"old", "data/gone": b"gone"}
    with _daemon(base) as docker:
        docker("import", "-", "one", feed=_tar(old))
        first = docker("create", "one", "sh").decode().strip()
        docker("cp", "-", f"{first}:/", feed=_tar({"data/changed": b"new", "data/added": b"a"}))
        docker("commit", first, "two")
        second = docker("create", "two", "sh").decode().strip()
        by_docker = _exported(docker, second)
        image, lower = (_upper_id(docker, what) for what in ("two", "one"))
        assert findings(base / "root" / "overlay2") == [], "of layers that dockerd has put"
        docker("rm", first, second)

    assert findings(base / "root" / "overlay2") == []

    # The reference driver on dockerd's home.
    driver = Driver(base / "root" / "overlay2")
    assert _viewed(driver, image) == by_docker
    paths = {str(change) for change in driver.changes(image, lower)}
    assert paths == {"C /data", "C /data/changed", "A /data/added"}

    # The image's layer, recreated by the reference driver under the same id.
    with driver.diff(image, lower) as stream:
        archive = stream.read()
    driver.remove(image)
    driver.create(image, lower)
    driver.apply_diff(image, lower, io.BytesIO(archive))
    view = driver.get(image)
    (view / "data/gone").unlink()
    driver.put(image)
    driver.cleanup()

    # dockerd on the home of the reference driver.
    with _daemon(base) as docker:
        third = docker("create", "two", "sh").decode().strip()
        assert _exported(docker, third) == {
            "data/kept": b"kept",
            "data/changed": b"new",
            "data/added": b"a",
        }
        docker("rm", third)
        docker("rmi", "--force", "two")
    assert not (base / "root/overlay2" / image).exists(), "dockerd could not remove our layer"
