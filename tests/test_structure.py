"""The architecture: allowed imports between packages, compared with the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = {
    "graphdriver": ROOT / "reference",
    "graphdriver_conformance": ROOT / "conformance",
    "graphdriver_vms": ROOT / "vms",
}
# The project packages that each package may import. The oracle must not share code with drivers.
ALLOWED = {
    "graphdriver": r"graphdriver(\..*)?",
    "graphdriver_conformance": r"graphdriver_conformance(\..*)?|graphdriver(\.(contract|errors))?",
    "graphdriver_vms": r"graphdriver_vms(\..*)?",
}
# Names that `graphdriver` itself exports; all others are internal to the driver.
CONTRACT = {
    "Capability",
    "Change",
    "ChangeKind",
    "Driver",
    "DriverFactory",
    "IDMap",
    "errors",
    "contract",
}


def _modules(package: str) -> list[Path]:
    return sorted((SOURCE_ROOTS[package.partition("/")[0]] / package).rglob("*.py"))


def _imports(module: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) for each import statement; name is "" for a plain import."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_packages_import_only_what_the_map_allows(package: str) -> None:
    offences = [
        f"{module.relative_to(ROOT)} imports {name or target} from {target}"
        for module in _modules(package)
        for target, name in _imports(module)
        if target.partition(".")[0] in SOURCE_ROOTS
        and (
            not re.fullmatch(ALLOWED[package], target)
            or (
                package == "graphdriver_conformance"
                and target == "graphdriver"
                and name not in CONTRACT
            )
        )
    ]

    assert offences == []


def test_reference_needs_nothing_but_the_standard_library() -> None:
    import sys

    foreign = {
        f"{module.relative_to(ROOT)}: {target}"
        for module in _modules("graphdriver")
        for target, _ in _imports(module)
        if target.partition(".")[0] not in {*sys.stdlib_module_names, "graphdriver"}
    }

    assert foreign == set()


def test_only_the_linux_package_of_the_reference_touches_ctypes() -> None:
    users = {
        module.relative_to(ROOT).as_posix()
        for module in _modules("graphdriver")
        for target, _ in _imports(module)
        if target.partition(".")[0] == "ctypes"
    }

    assert {user for user in users if not user.startswith("reference/graphdriver/linux/")} == set()


def test_packages_of_the_reference_import_each_other_one_way_only() -> None:
    """A package is a directory of `graphdriver`; its root modules are the lowest level."""
    root = SOURCE_ROOTS["graphdriver"] / "graphdriver"
    packages = {path.name for path in root.iterdir() if (path / "__init__.py").exists()}
    uses: dict[str, set[str]] = {package: set() for package in packages}
    for package in packages:
        for module in _modules(f"graphdriver/{package}"):
            for target, name in _imports(module):
                parts = [*target.split("."), name]
                if parts[0] == "graphdriver" and parts[1] in packages - {package}:
                    uses[package].add(parts[1])

    while leaves := {package for package, used in uses.items() if not used}:
        uses = {one: used - leaves for one, used in uses.items() if one not in leaves}

    assert uses == {}, "these packages import each other in a circle"


def test_overlay2_does_not_import_vfs() -> None:
    users = [
        f"{module.name} imports {target}"
        for module in _modules("graphdriver/overlay2")
        for target, _ in _imports(module)
        if target.startswith("graphdriver.vfs")
    ]

    assert users == []


def test_stdlib_tarfile_stays_out_of_the_reference() -> None:
    users = [
        m.name for m in _modules("graphdriver") for target, _ in _imports(m) if target == "tarfile"
    ]

    assert users == []


@pytest.mark.parametrize("root", SOURCE_ROOTS.values(), ids=lambda root: str(root.name))
def test_source_roots_contain_no_other_modules(root: Path) -> None:
    """An editable install puts the root on sys.path: every project could import a stray module."""
    assert sorted(root.glob("*.py")) == []


def test_module_names_are_specific() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}

    assert [m for package in SOURCE_ROOTS for m in _modules(package) if m.stem in vague] == []
