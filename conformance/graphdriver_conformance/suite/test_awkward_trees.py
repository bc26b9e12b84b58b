"""CHG-024, DIF-062, DIF-064, LIF-036: paths longer than PATH_MAX, and loops of symlinks."""

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.archive import read_archive
from graphdriver_conformance.oracle.changes import change_findings
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.layer import apply_layer
from graphdriver_conformance.oracle.tree import Tree, directory, file, symlink
from graphdriver_conformance.suite.support.deep_trees import DEEP, read_deep, write_deep
from graphdriver_conformance.suite.support.names import assert_there

_LOOPS = Tree.of(
    {
        "self": symlink("self"),
        "a": symlink("b"),
        "b": symlink("a"),
        "absolute": symlink("/absolute"),
        "d/up": symlink(".."),
        "d/here": symlink("."),
        "d/f": b"f",
        "into": symlink("d/up/into"),
    }
)
_CHANGED = Tree(
    {
        # A target of another length: CHG-011 tests those that only content distinguishes.
        **_LOOPS.without(b"absolute"),
        b"a": symlink("./a"),
        b"b": file(b"now a file"),
        b"d/f": symlink("f"),
        b"new": directory(),
        b"new/loop": symlink("../new/loop"),
    }
)


def _deep_layer(graphdriver: Subject) -> tuple[str, str]:
    """Return a base, and a child with a deep tree."""
    base = graphdriver.build(Tree.of({"kept": b"kept"}))
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        graphdriver.program.line(f"write a file whose path has {len(DEEP)} bytes")
        write_deep(graphdriver, root, b"deep")
    return base, layer


@verifies("DIF-062")
def test_archive_has_paths_longer_than_path_max(graphdriver: Subject) -> None:
    """Docker's tar omitted such files; os.walk() and full paths end with ENAMETOOLONG."""
    base, layer = _deep_layer(graphdriver)
    parents = (base, "") if graphdriver.claims(Capability.FLATTENED_DIFF) else (base,)
    for parent in parents:
        entries = {one.path: one for one in read_archive(graphdriver.diff_bytes(layer, parent))}
        assert_there([DEEP], entries, f"the archive of diff({layer!r}, {parent!r})")
        assert entries[DEEP].node.content == b"deep", f"diff({layer!r}, {parent!r})"

    sibling = graphdriver.new_layer(base)
    archive = graphdriver.diff_bytes(layer, base)
    try:
        graphdriver.apply_diff(sibling, base, archive)
    except (DriverError, OSError) as error:
        graphdriver.note(f"apply_diff was refused: {error}")
    else:
        with graphdriver.view(sibling) as root:
            assert read_deep(root) == b"deep", "the file that apply_diff created"
    for id in (sibling, layer):
        graphdriver.remove(id)
        assert not graphdriver.exists(id), f"remove left {id}"


@verifies("CHG-024")
def test_changes_has_paths_longer_than_path_max(graphdriver: Subject) -> None:
    """The file and its directories are additions."""
    base, layer = _deep_layer(graphdriver)

    listed = {change.path.removeprefix(b"/") for change in graphdriver.changes(layer, base)}

    parts = DEEP.split(b"/")
    wanted = [b"/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    assert_there(wanted, listed, "the list of changes")


@verifies("LIF-036")
def test_child_has_paths_longer_than_path_max(graphdriver: Subject) -> None:
    """A refusal is visible; a container without the files is not."""
    _, layer = _deep_layer(graphdriver)
    child = graphdriver.new_id("child")
    try:
        graphdriver.create_read_write(child, layer)
    except (DriverError, OSError) as error:
        graphdriver.note(f"create was refused: {error}")
        return

    with graphdriver.view(child) as root:
        assert read_deep(root) == b"deep", "the file of the parent in the child"
    graphdriver.remove(child)
    assert not graphdriver.exists(child), "remove left the child"


@verifies("DIF-064")
def test_loops_of_symlinks_are_ordinary_content(graphdriver: Subject) -> None:
    """Links to themselves, to each other, to the directory above, and files in their places."""
    base = graphdriver.build(_LOOPS)
    layer = graphdriver.build(_CHANGED, base)

    archive = graphdriver.diff_bytes(layer, base)
    assert_same_tree(_CHANGED, apply_layer(_LOOPS, read_archive(archive)), "the archive")
    sibling = graphdriver.new_layer(base)
    graphdriver.apply_diff(sibling, base, archive)
    assert_same_tree(_CHANGED, graphdriver.tree(sibling), "after diff and apply_diff")
    child = graphdriver.new_layer(layer, writable=True)
    assert_same_tree(_CHANGED, graphdriver.tree(child), "the child")
    if graphdriver.claims(Capability.FLATTENED_DIFF):
        whole = apply_layer(Tree(), read_archive(graphdriver.diff_bytes(layer)))
        assert_same_tree(_CHANGED, whole, "the flattened archive")
    if graphdriver.claims(Capability.CHANGES):
        reported = graphdriver.changes(layer, base)
        assert change_findings(_LOOPS, _CHANGED, reported) == [], "the list of changes"
    if graphdriver.claims(Capability.DIFF_SIZE):
        size = graphdriver.diff_size(layer, base)
        assert size >= len(b"now a file"), f"diff_size is {size}"
    for id in (child, sibling, layer, base):
        graphdriver.remove(id)
        assert not graphdriver.exists(id), f"remove left {id}"


@verifies("DIF-064")
def test_directory_replaces_a_loop_of_symlinks(graphdriver: Subject) -> None:
    """containers-storage 1.43 omits the directory from the archive, but not its content."""
    changed = Tree(
        {**_LOOPS, b"into": directory(0o700), b"into/new": symlink("../into/new"), b"a": file()}
    )
    base = graphdriver.build(_LOOPS)
    layer = graphdriver.build(changed, base)

    archive = graphdriver.diff_bytes(layer, base)

    names = {entry.path for entry in read_archive(archive)}
    assert_there([b"into", b"into/new", b"a"], names, "the archive")
    assert_same_tree(changed, apply_layer(_LOOPS, read_archive(archive)), "the archive")
