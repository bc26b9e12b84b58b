"""Mapping of owners between archive and disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver import IDMap
from graphdriver.errors import PrerequisitesNotMet, UnmappedId
from graphdriver.idmapping import IDMapping

TWO_RANGES = (IDMap(0, 1000, 1), IDMap(1, 100_000, 65_535))


def test_without_maps_ids_are_unchanged() -> None:
    mapping = IDMapping()

    assert mapping.identity
    assert mapping.root == (0, 0)
    assert mapping.to_host(7, 2**32 - 2) == (7, 2**32 - 2)


def test_root_is_mapped_root() -> None:
    assert IDMapping(TWO_RANGES, TWO_RANGES).root == (1000, 1000)


@given(st.integers(0, 65_535), st.integers(0, 65_535))
def test_outside_and_back_is_identity(uid: int, gid: int) -> None:
    mapping = IDMapping(TWO_RANGES, TWO_RANGES)

    assert mapping.to_container(*mapping.to_host(uid, gid)) == (uid, gid)


@pytest.mark.parametrize(("inside", "outside"), [(0, 1000), (1, 100_000), (65_535, 165_534)])
def test_ranges_meet_at_their_boundaries(inside: int, outside: int) -> None:
    assert IDMapping(TWO_RANGES, TWO_RANGES).to_host(inside, inside) == (outside, outside)


def test_unmapped_ids_are_refused_both_ways() -> None:
    mapping = IDMapping(TWO_RANGES, TWO_RANGES)

    with pytest.raises(UnmappedId, match="uid 65536"):
        mapping.to_host(65_536, 0)
    with pytest.raises(UnmappedId, match="gid 0 on disk"):
        mapping.to_container(1000, 0)


def test_the_id_that_chown_ignores_is_nobody() -> None:
    with pytest.raises(UnmappedId):
        IDMapping().to_host(2**32 - 1, 0)


@pytest.mark.parametrize("broken", [IDMap(0, 0, 0), IDMap(-1, 0, 5), IDMap(0, 2**32 - 2, 9)])
def test_impossible_maps_are_refused(broken: IDMap) -> None:
    with pytest.raises(PrerequisitesNotMet):
        IDMapping((broken,))


def test_maps_without_root_are_refused() -> None:
    with pytest.raises(PrerequisitesNotMet, match="leave out id 0"):
        IDMapping((IDMap(1, 1000, 5),))
