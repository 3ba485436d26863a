"""Reading the body of a `put`: exactly as many bytes as were promised, or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from chorus_upload.errors import IntegrityError

# Not every stream can read into memory that it is given, so a block is put together from pieces of this size.
_PIECE = 1 << 20


def blocks_of(body: bytes | BinaryIO, *, size: int, block_size: int) -> Iterator[bytes]:
    """Yield `body` in blocks of `block_size` bytes, the last one shorter; nothing at all when it is empty.

    The last block is only handed out after the end of the body was seen, so a caller who has it knows that
    `size` was right and that a reader had its chance to object. Raises IntegrityError when the body is not
    `size` bytes long; what the reader raises passes unchanged.
    """
    stream = io.BytesIO(body) if isinstance(body, bytes) else body
    left = size
    while left > 0:
        block = _read_exactly(stream, min(block_size, left))
        left -= len(block)
        if len(block) < block_size and left > 0:
            raise IntegrityError(f"the body ended {left:,} bytes before the {size:,} that were promised")
        if left == 0:
            require_end(stream, size)
        yield block
    if size == 0:
        require_end(stream, size)


def whole(body: bytes | BinaryIO, *, size: int) -> bytes:
    """A body of `size` bytes as it is; IntegrityError and what the reader raises as with `blocks_of`."""
    if isinstance(body, bytes) and len(body) == size:
        return body
    return next(blocks_of(body, size=size, block_size=max(size, 1)), b"")


def fill(view: memoryview, body: BinaryIO, *, missing: int) -> None:
    """Read from `body`, of which `missing` bytes are still to come, until `view` is full; IntegrityError if it ends."""
    got = 0
    while got < len(view):
        piece = body.read(min(len(view) - got, _PIECE))
        if not piece:
            raise IntegrityError(f"the body ended {missing - got:,} bytes before it should have")
        view[got : got + len(piece)] = piece
        got += len(piece)


def require_end(body: BinaryIO, size: int) -> None:
    """IntegrityError when `body`, of which `size` bytes were read, goes on."""
    if body.read(1):
        raise IntegrityError(f"the body goes on after the {size:,} bytes that were promised")


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    """Up to `count` bytes, fewer only at the end; unbuffered streams may give less than was asked for."""
    first = stream.read(count)
    if len(first) == count or not first:
        return first
    pieces, missing = [first], count - len(first)
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
