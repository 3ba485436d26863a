from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus_upload.errors import IntegrityError
from chorus_upload.storage.bodies import blocks_of


class Drip(io.RawIOBase):
    """A stream that gives less than it is asked for, as unbuffered ones may."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._left = content

    def read(self, size: int = -1, /) -> bytes:
        count = min(3, size) if size >= 0 else 3
        piece, self._left = self._left[:count], self._left[count:]
        return piece


@given(content=st.binary(max_size=50), block_size=st.integers(1, 20), drip=st.booleans())
def test_blocks_are_the_body(content: bytes, block_size: int, drip: bool) -> None:  # noqa: FBT001
    body = Drip(content) if drip else content
    blocks = list(blocks_of(body, size=len(content), block_size=block_size))  # type: ignore[arg-type]
    assert b"".join(blocks) == content
    assert all(len(block) == block_size for block in blocks[:-1])
    assert all(blocks)


@given(content=st.binary(max_size=50), wrong=st.integers(0, 60), block_size=st.integers(1, 20))
def test_another_length_is_refused_before_the_last_block(content: bytes, wrong: int, block_size: int) -> None:
    if wrong == len(content):
        return
    seen = b""
    with pytest.raises(IntegrityError):
        for block in blocks_of(io.BytesIO(content), size=wrong, block_size=block_size):
            seen += block
    assert len(seen) < max(wrong, 1)


def test_reads_on_from_where_a_stream_stands() -> None:
    stream = io.BytesIO(b"header|body")
    stream.seek(7)
    assert list(blocks_of(stream, size=4, block_size=100)) == [b"body"]


def test_a_reader_can_object_at_the_end() -> None:
    class Objects(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError("it changed")
            return data

    blocks = blocks_of(Objects(b"12345678"), size=8, block_size=4)
    assert next(blocks) == b"1234"
    with pytest.raises(OSError, match="it changed"):
        next(blocks)
