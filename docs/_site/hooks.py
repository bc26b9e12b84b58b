"""Hooks of MkDocs: generated pages, navigation, and links from the pages to each other."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from requirement_pages import (
    SECTIONS,
    families,
    family_page,
    index_page,
    requirement_page,
)

_ROOT = Path(__file__).parents[2]
_PROJECT = {
    "CONTRIBUTING.md": ("Contributing", "contributing.md"),
    "CHANGELOG.md": ("Changelog", "changelog.md"),
    "SECURITY.md": ("Security", "security.md"),
    "CODE_OF_CONDUCT.md": ("Code of conduct", "code-of-conduct.md"),
}
_IDS = {one.id for some in families().values() for one in some}
# Code, links and headings are left as they are; an id elsewhere becomes a link.
_PIECES = re.compile(
    r"(?P<keep>```.*?```|`[^`\n]*`|!?\[[^\]]*\]\([^)]*\)|^#.*?$)|\b(?P<id>[A-Z]{3}-\d{3})\b",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: requirements, findings, and pages that mkdocs.yml does not list."""
    docs = Path(config.docs_dir)
    nav = _filled(config.nav or [], docs)
    listed = set(re.findall(r"'([^']+\.md)'", repr(nav)))
    extra = sorted(path.name for path in docs.glob("*.md") if path.name not in listed)
    for section in nav:
        if extra and "Explanation" in section:
            section["Explanation"] += extra
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files that stand outside of docs/."""
    pages = {"requirements/index.md": index_page()}
    for family, some in families().items():
        pages[f"requirements/{family}.md"] = family_page(family)
        pages |= {f"requirements/{one.id}.md": requirement_page(one) for one in some}
    for name, (_, target) in _PROJECT.items():
        if (_ROOT / name).exists():
            text = (_ROOT / name).read_text("utf-8")
            # From here docs/ is the page's own directory, and the root is the one above it.
            pages[target] = _LINK.sub(lambda link: _moved(link[1], link[2]), text)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    style = (Path(__file__).parent / "style.css").read_text("utf-8")
    files.append(File.generated(config, "style.css", content=style))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository somewhere, and each id to its page."""
    up = "../" * page.file.src_uri.count("/")
    markdown = _LINK.sub(lambda link: _outside(link[1], link[2], up, config), markdown)
    if page.file.src_uri.startswith("requirements/"):
        return markdown
    return _PIECES.sub(lambda piece: _identified(piece, up), markdown)


def _filled(nav: list[Any], docs: Path) -> list[Any]:
    """Return the navigation with its three placeholders filled, without pages that do not exist."""
    found: list[Any] = []
    for entry in nav:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = _filled(target, docs)
        elif target == "REQUIREMENTS":
            target = ["requirements/index.md", *map(_family_entry, families())]
        elif target == "FINDINGS":
            # README.md sorts before the lower-case names: it is the index.
            target = sorted(f"findings/{path.name}" for path in docs.glob("findings/*.md"))
        elif target == "PROJECT":
            target = [
                {title: path} for name, (title, path) in _PROJECT.items() if (_ROOT / name).exists()
            ]
        elif not (docs / target).exists():
            continue
        if target:
            found.append({title: target})
    return found


def _family_entry(family: str) -> dict[str, list[Any]]:
    pages = [{one.id: f"requirements/{one.id}.md"} for one in families()[family]]
    entries: list[Any] = [{"Overview": f"requirements/{family}.md"}, *pages]
    return {f"{family}: {SECTIONS.get(family, family)}": entries}


def _moved(text: str, target: str) -> str:
    if target.startswith("docs/"):
        target = target.removeprefix("docs/")
    elif "://" not in target and not target.startswith("#"):
        target = f"../{target}"
    return f"[{text}]({target})"


def _outside(text: str, target: str, up: str, config: MkDocsConfig) -> str:
    """Return a link whose target is outside of docs/ as a link that the site can have."""
    outside = f"{up}../"
    if not target.startswith(outside):
        return f"[{text}]({target})"
    path, _, anchor = target.removeprefix(outside).partition("#")
    if path in _PROJECT:
        return f"[{text}]({up}{_PROJECT[path][1]}{'#' * bool(anchor)}{anchor})"
    if path == "README.md":
        return f"[{text}]({up}index.md)"
    if config.repo_url:
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})"
    return text if text.startswith("`") else f"`{path}`"


def _identified(piece: re.Match[str], up: str) -> str:
    if piece["keep"] or piece["id"] not in _IDS:
        return piece[0]
    return f"[{piece['id']}]({up}requirements/{piece['id']}.md)"
