"""kernels.toml and cells.toml, as parsed by Python and by the Vagrantfile's Ruby code."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from graphdriver_vms.cells import CONFORMANT, VIOLATED, load_cells, plan
from graphdriver_vms.kernels import Source, load_kernels
from graphdriver_vms.machines.provider import LIBVIRT, VIRTUALBOX

ROOT = Path(__file__).parents[2]


def test_every_kernel_says_where_it_comes_from_and_why() -> None:
    kernels = load_kernels()

    assert [one.name for one in kernels.values() if one.is_built_here] == [
        "5.10",
        "6.1",
        "6.12",
        "6.18",
        "7.3",
    ]
    assert [one.name for one in kernels.values() if not one.why] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"\ninit = "works"\nwhy = "x"', "suite and package, a box, or uml"),
        ('name = "a"\ninit = "works"\nwhy = "x"\nsuite = "sid"', "suite and package"),
        ('name = "host"\nbox = "b"\ninit = "works"\nwhy = "x"', "name of its own"),
    ],
)
def test_incomplete_kernels_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "kernels.toml"
    file.write_text(f"[[kernel]]\n{text}\n")

    with pytest.raises(ValueError, match=words):
        load_kernels(file)


needs_ruby = pytest.mark.skipif(
    not shutil.which("ruby"), reason="needs ruby, which comes with vagrant"
)


def _of_the_vagrantfile(expression: str, **variables: str) -> Any:
    """Return the results of functions of the Vagrantfile, as JSON data."""
    program = (
        "source = File.read(ARGV[0]).split('Vagrant.configure').first;"
        f"eval(source, binding, ARGV[0]); puts({expression}.to_json)"
    )
    done = subprocess.run(
        ["ruby", "-rjson", "-e", program, ROOT / "Vagrantfile"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    return json.loads(done.stdout)


@needs_ruby
def test_the_vagrantfile_reads_the_same_kernels() -> None:
    """It has a parser for a subset of TOML only; the file must not use more than that."""
    expected = [
        {"name": one.name, "suite": one.suite, "package": one.package, "box": one.box}
        for one in load_kernels().values()
    ]

    assert [
        {key: one.get(key, "") for key in ("name", "suite", "package", "box")}
        for one in _of_the_vagrantfile("kernels")
    ] == expected


@needs_ruby
@pytest.mark.parametrize("provider", [LIBVIRT, VIRTUALBOX])
def test_the_vagrantfile_boots_what_the_matrix_built(tmp_path: Path, provider: str) -> None:
    kernels = load_kernels()
    for place in ("boxes/graphdriver-x/box.tar", *(f"kernels/{n}/kernel.json" for n in kernels)):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()

    built = _of_the_vagrantfile(
        "kernels.select { |one| built(one) }.map { |one| one['name'] }",
        GRAPHDRIVER_MATRIX_CACHE=str(tmp_path),
        VAGRANT_DEFAULT_PROVIDER=provider,
    )

    expected = [n for n, one in kernels.items() if one.source(provider) is Source.BUILT]
    assert built == expected


@needs_ruby
def test_the_vagrantfile_takes_processors_and_files_of_the_run(tmp_path: Path) -> None:
    expression = "[processors, memory, boot_file('/k', 'vmlinuz'), boot_file('/k', 'initrd')]"

    assert _of_the_vagrantfile(expression) == [1, 1024, "/k/vmlinuz", "/k/initrd"]
    assert _of_the_vagrantfile(
        expression, GRAPHDRIVER_MATRIX_PROCESSORS="2", GRAPHDRIVER_MATRIX_VMLINUZ="/pool/x"
    ) == [2, 1536, "/pool/x", "/k/initrd"]


def test_cells_cover_what_the_matrix_is_for() -> None:
    cells = load_cells()

    assert next(iter(cells.values())).requirements == [], "the first cell is the whole suite"
    expected = {"IncompatibleFS", "NotSupported", CONFORMANT, VIOLATED}
    assert {one.expect for one in cells.values()} == expected
    parameters = {name for one in cells.values() for name in one.parameters}
    assert parameters == {"redirect_dir", "metacopy", "index", "xino_auto"}


def test_plan_contains_existing_families_only() -> None:
    cells = list(load_cells().values())

    made = plan(cells, "mine:Driver", frozenset({"LIF", "WHT"}), "quick", "works")

    chosen = {one["name"]: one for one in made["cells"]}
    assert chosen["btrfs"]["requirements"] == ["LIF", "WHT"]
    assert chosen["btrfs"]["driver"] == "mine:Driver"
    assert chosen["vfs"]["driver"] == "vfs"


def test_on_a_kernel_that_init_must_refuse_all_cells_expect_it() -> None:
    cells = list(load_cells().values())

    made = plan(cells, "overlay2", frozenset(), "quick", "NotSupported")

    expected = {"vfs": CONFORMANT}  # copying needs no overlayfs
    assert {
        one["driver"]: one["expect"] for one in made["cells"] if one["expect"] != "NotSupported"
    } == expected
