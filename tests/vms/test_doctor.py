"""The findings of doctor on a host with missing prerequisites."""

import errno
import os
from pathlib import Path

import pytest

from graphdriver_vms import cli, doctor
from graphdriver_vms.doctor import Finding, findings, install_command
from graphdriver_vms.machines.engine import EngineName


def test_program_that_is_there_and_does_not_start_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dnsmasq").write_text("#!/bin/sh\necho 'no libnettle.so.8' >&2\nexit 127\n")
    (tmp_path / "dnsmasq").chmod(0o755)
    monkeypatch.setattr(doctor, "_PATH", f"{tmp_path}:{os.environ['PATH']}")

    (found,) = (one for one in findings(tmp_path) if one.text == "dnsmasq")

    assert found.remedy == "does not start (no libnettle.so.8): apt-get install dnsmasq-base"


def test_one_line_installs_all_that_is_missing() -> None:
    found = [
        Finding("dnsmasq", "is missing: apt-get install dnsmasq-base", "dnsmasq-base"),
        Finding("cpio", "", "cpio"),
        Finding("depmod", "is missing: apt-get install kmod", "kmod"),
        Finding("modprobe", "is missing: apt-get install kmod", "kmod"),
        Finding("python-vagrant", "pip install python-vagrant", wheel="python-vagrant"),
        Finding("0.1 GiB free", "make room for 6 GiB"),
    ]

    expected = (
        "apt-get install -y --no-install-recommends dnsmasq-base kmod && pip install python-vagrant"
    )
    assert install_command(found) == expected
    assert install_command([]) == ""


def test_user_mode_linux_needs_neither_root_nor_vagrant(tmp_path: Path) -> None:
    texts = {one.text for one in findings(tmp_path, EngineName.UML)}

    assert not {"root", "vagrant", "virsh", "qemu-system-x86_64", "mmdebstrap"} & texts


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_reported_as_that(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def fill(cache: Path) -> list[str]:
        raise OSError(number, os.strerror(number), str(cache / "boxes"))

    monkeypatch.setattr(cli, "clean", fill)

    assert cli.main(["clean", f"--cache={tmp_path}"]) == 2
    assert f"no space is left below {tmp_path}/boxes" in capsys.readouterr().err
