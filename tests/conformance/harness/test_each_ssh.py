"""`--dist each --tx ssh=...`: machines that are connected by ssh.

Two hosts, each with its own host name, network and mount namespace, in which ssh(1) starts sshd
through nsenter(1). No address of the real host is needed.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from graphdriver_conformance.results.grid import labels
from graphdriver_conformance.results.result_file import read_results

pytest.importorskip("xdist")
pytest_plugins = ("pytester",)

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
HOSTS = ("one", "two")
pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="sshd and ssh are not installed"
)
BROKEN_ON_TWO = """
import os
from graphdriver.vfs import Driver
class Mine(Driver):
    def exists(self, id):
        return os.uname().nodename != "two" and super().exists(id)
"""
SERVER = """
HostKey {place}/host
AuthorizedKeysFile {place}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
"""
CLIENT = """
Host {name}
    User root
    IdentityFile {place}/user
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
    ProxyCommand nsenter --target {pid} --net --uts --mount {sshd} -i -f {place}/server
"""
# sshd without PAM rejects root if the account is locked.
HOST = """
set -e
hostname {name}
mount -t tmpfs none /run
mkdir -p /run/sshd
sed 's/^root:[^:]*:/root:*:/' /etc/shadow > /run/shadow
mount --bind /run/shadow /etc/shadow
echo ready
read _
"""


@contextmanager
def _host(name: str) -> Iterator[int]:
    """Yield the pid of a process in the namespaces of a host, which end after the block."""
    command = ["unshare", "--net", "--uts", "--mount", "sh", "-c", HOST.format(name=name)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.stdin.close()


@pytest.fixture
def ssh_config(tmp_path: Path) -> Iterator[Path]:
    """A configuration of ssh(1) with two hosts, `one` and `two`."""
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)]
        subprocess.run(command, check=True)
    (tmp_path / "server").write_text(SERVER.format(place=tmp_path))
    file = tmp_path / "ssh_config"
    with ExitStack() as stack, file.open("w") as text:
        for name in HOSTS:
            pid = stack.enter_context(_host(name))
            text.write(CLIENT.format(name=name, place=tmp_path, pid=pid, sshd=SSHD))
        text.flush()
        yield file


def test_each_host_has_a_verdict_and_a_file(ssh_config: Path, pytester: pytest.Pytester) -> None:
    places = [
        f"--tx=ssh={name}//ssh_config={ssh_config}//python={sys.executable}//chdir={pytester.path}"
        for name in HOSTS
    ]

    pytester.makepyfile(mine=BROKEN_ON_TWO)
    result = pytester.runpytest_subprocess(
        *("--driver=mine:Mine", "--dist=each", *places, "--requirement=LIF-001"),
        *("--graphdriver-profile=quick", "--graphdriver-report=r.json", "-p", "no:cacheprovider"),
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*verdict on mine:Mine on {name}*" for name in HOSTS])
    results = read_results([pytester.path / f"r-{name}.json" for name in HOSTS])
    assert labels(results) == [f"mine:Mine · {name}" for name in HOSTS]
    assert [one.verdict for one in results] == ["conformant", "not-conformant"]
