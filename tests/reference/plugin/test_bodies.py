"""Bodies end at their declared length, or raise."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdriver.plugin.bodies import ChunkedBody, SizedBody, TruncatedBody


def _chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 17))
def test_chunks_come_back_as_one_body(pieces: list[bytes], step: int) -> None:
    source = io.BytesIO(_chunked(pieces) + b"NEXT")
    body = ChunkedBody(source)

    data = b"".join(iter(lambda: body.read(step), b""))

    assert data == b"".join(pieces)
    assert source.read() == b"NEXT"


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), st.data())
def test_chunked_body_cut_anywhere_raises(pieces: list[bytes], data: st.DataObject) -> None:
    whole = _chunked(pieces)
    cut = data.draw(st.integers(0, len(whole) - 2))

    with pytest.raises(TruncatedBody):
        ChunkedBody(io.BytesIO(whole[:cut])).drain()


@pytest.mark.parametrize("head", [b"zz\r\n", b"-5\r\n", b"\r\n", b"5" * 5000])
def test_nonsense_instead_of_a_chunk_raises(head: bytes) -> None:
    with pytest.raises(TruncatedBody):
        ChunkedBody(io.BytesIO(head)).read(10)


def test_sized_body_ends_at_its_length_or_raises() -> None:
    source = io.BytesIO(b"abcdef")

    assert SizedBody(source, 4).read(100) == b"abcd"
    with pytest.raises(TruncatedBody, match="lacks 3 bytes"):
        SizedBody(source, 5).drain()
