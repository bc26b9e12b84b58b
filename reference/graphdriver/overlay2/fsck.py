"""Check an overlay2 home and report damage: `graphdriver fsck HOME`.

The check only reads, and does not create a driver, because the start of a driver would remove
remnants before they can be reported. Homes that dockerd wrote are supported.
"""

import argparse
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from graphdriver.overlay2.layout import LINK_NAME, LINKS, MAX_LOWERS
from graphdriver.overlay2.recovery import APPLYING, is_dockerd_remnant, is_remnant

__all__ = ["Finding", "findings", "main"]

# Files that dockerd stores beside the layers.
_NO_LAYERS = frozenset({LINKS, "backingFsBlockDev"})


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A finding: the damage, the file or layer (relative to the home), and the remedy."""

    name: str
    what: str
    hint: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.name}: {self.what}; {self.hint}"


def findings(home: Path) -> list[Finding]:
    """Return all damage in the home, sorted by path. Raises OSError."""
    names = sorted(os.listdir(home))
    layers = {
        name: home / name
        for name in names
        if name not in _NO_LAYERS
        and not is_remnant(name)
        and not is_dockerd_remnant(name)
        and (home / name).is_dir()
    }
    written = {id: _text(path / "link") for id, path in layers.items()}
    # If a power cut has emptied a link file (moby #42964), the short link still identifies the
    # layer.
    named = _names_of(home)
    links = {id: one if _is_link(one) else named.get(id) for id, one in written.items()}
    found = [*_of_home(home, names), *_of_links(home, links)]
    for id, path in layers.items():
        found += [*_of_link(home, id, written[id], links[id]), *_of_layer(home, id, path, links)]
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    """Print the findings; return 0 without findings, 1 with findings, 4 if it is not a home."""
    parser = argparse.ArgumentParser("graphdriver fsck", description="Check an overlay2 home.")
    parser.add_argument("home", type=Path, help="as /var/lib/docker/overlay2; it is only read")
    home = parser.parse_args(arguments).home
    if not (home / LINKS).is_dir():
        what = "no overlay2 home" if home.is_dir() else "no directory"
        print(f"graphdriver fsck: {home} is {what}; name one that has {LINKS}/", file=sys.stderr)
        return 4
    try:
        found = findings(home)
    except OSError as error:
        print(f"graphdriver fsck: {error}; run as the home's owner", file=sys.stderr)
        return 4
    for one in found:
        print(one)
    names = [name for name in os.listdir(home) if not is_remnant(name)]
    count = sum(1 for name in names if (home / name / "diff").is_dir())
    print(f"{home}: {count} layer(s), {len(found)} finding(s)")
    return 1 if found else 0


def _of_home(home: Path, names: list[str]) -> Iterator[Finding]:
    if stat.S_IMODE(home.stat().st_mode) & 0o007:
        yield Finding(".", "other users can enter it (CVE-2021-41091)", "chmod 710 it")
    for name in names:
        if is_remnant(name):
            yield Finding(name, "the remnant of a crash", "the next start of the driver removes it")
        elif is_dockerd_remnant(name):
            hint = "while no dockerd runs, unmount all mounts in it and remove it"
            yield Finding(name, "the probe of a dockerd that was killed", hint)


def _of_links(home: Path, links: Mapping[str, str | None]) -> Iterator[Finding]:
    """Check the short links: each must point to the layer whose link file contains its name."""
    for name in sorted(os.listdir(home / LINKS)):
        shown = f"{LINKS}/{name}"
        target = _target(home / LINKS / name)
        if not target:
            yield Finding(shown, "is not a symlink", "remove it")
            continue
        parts = Path(target).parts
        if len(parts) != 3 or parts[0] != ".." or parts[2] != "diff":
            yield Finding(
                shown, f"points to {target}, which is not the diff of a layer", "remove it"
            )
        elif parts[1] not in links:
            yield Finding(shown, f"points to {parts[1]}, which does not exist", "remove it")
        elif links[parts[1]] != name:
            yield Finding(shown, f"{parts[1]} has the link {links[parts[1]]}", "remove it")


def _names_of(home: Path) -> dict[str, str]:
    """Return the short link that points to each layer, if there is exactly one."""
    found: dict[str, list[str]] = {}
    for name in filter(_is_link, os.listdir(home / LINKS)):
        parts = Path(_target(home / LINKS / name)).parts
        if len(parts) == 3 and (parts[0], parts[2]) == ("..", "diff"):
            found.setdefault(parts[1], []).append(name)
    return {id: names[0] for id, names in found.items() if len(names) == 1}


def _is_link(text: str | None) -> bool:
    return text is not None and LINK_NAME.fullmatch(text) is not None


def _target(link: Path) -> str:
    """Return the target of a symlink, "" if the path is not a symlink."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _of_link(home: Path, id: str, written: str | None, link: str | None) -> Iterator[Finding]:
    """Check a layer's own link file; `link` is the name of its short link as far as it is known."""
    if not (home / id / "diff").is_dir():
        return
    if not _is_link(written):
        shown = "missing" if written is None else f"damaged: {written[:40]!r}"
        hint = f"write {link} into it" if link else "no short link points to the layer: remove it"
        yield Finding(f"{id}/link", f"is {shown}, as after a power cut", hint)
    elif not (home / LINKS / str(link)).is_symlink():
        yield Finding(
            id, f"its short link {LINKS}/{link} is missing", "the next start recreates it"
        )


def _of_layer(
    home: Path, id: str, path: Path, links: Mapping[str, str | None]
) -> Iterator[Finding]:
    if (path / "diff").is_symlink():
        target = _target(path / "diff")
        yield Finding(f"{id}/diff", f"is a symlink to {target}", "remove the layer")
        return
    if not (path / "diff").is_dir():
        yield Finding(id, "has no diff directory", "remove it, it is not a layer")
        return
    if (path / APPLYING).exists():
        hint = "the next start of the driver, or the next apply_diff to the layer, repairs it"
        yield Finding(id, "an apply_diff was interrupted", hint)
    yield from _of_lowers(home, id, path, links)


def _of_lowers(
    home: Path, id: str, path: Path, links: Mapping[str, str | None]
) -> Iterator[Finding]:
    """Check the lower file: all lowers exist, and the parent's lowers follow the parent."""
    text = _text(path / "lower")
    if text is None:
        # Base layers have none of both, dockerd's neither.
        if (path / "work").is_dir():
            yield Finding(
                f"{id}/lower", "is missing, but there is a work directory", "remove the layer"
            )
        return
    lowers = text.split(":")
    name = f"{id}/lower"
    shorts = [one.removeprefix(f"{LINKS}/") for one in lowers]
    if not all(map(LINK_NAME.fullmatch, shorts)) or any("/" not in one for one in lowers):
        yield Finding(name, f"is damaged: {text[:60]!r}", "remove the layer")
        return
    if len(lowers) > MAX_LOWERS:
        yield Finding(name, f"has {len(lowers)} lowers", f"{MAX_LOWERS} are allowed; flatten it")
    layers = {link: id for id, link in links.items()}
    for short in shorts:
        if short not in layers or not (home / LINKS / short).exists():
            yield Finding(name, f"the layer of {LINKS}/{short} does not exist", "remove the layer")
            return
    parent = layers[shorts[0]]
    above = _text(home / parent / "lower")
    if lowers[1:] != (above.split(":") if above else []):
        yield Finding(name, f"does not end with the lowers of its parent {parent}", "remove it")
    # A missing merged directory is not damage: dockerd creates it in get and removes it in put.
    if not (path / "work").is_dir():
        yield Finding(
            id, "has no work directory", "create it; the layer cannot be mounted without it"
        )


def _text(path: Path) -> str | None:
    """Return a small file's content, None when there is none, "" for a directory."""
    try:
        return path.read_bytes()[: 1 << 16].decode("ascii", "backslashreplace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
