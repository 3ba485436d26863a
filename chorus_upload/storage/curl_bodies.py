"""What libcurl reads the bodies of requests from, and gives those of answers to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

import pycurl

from chorus_upload.storage.bandwidth import Throttle

# A list of 50,000 blocks or a page of a listing is a tenth of that.
_LONGEST_ANSWER = 1 << 26


Head = TypeVar("Head")


class Incoming(list[bytes]):
    """The pieces of an answer, as far as it is as short as every answer is that we ask for."""

    is_enough = False
    """Whether whoever takes it wants no more of it."""

    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def take(self, piece: bytes) -> int | None:
        """None is libcurl's word for all of it; any other number ends the transfer."""
        self._size += len(piece)
        if self._size > _LONGEST_ANSWER:
            return -1
        self.append(piece)
        return None


class Passing(Incoming, Generic[Head]):
    """The pieces of an answer that is no success; those of a success are passed on, with what precedes them.

    `head` tells that once it is there, and whether it is a success.
    """

    def __init__(self, head: Callable[[], tuple[Head, bool]], take: Callable[[Head, bytes], bool]) -> None:
        super().__init__()
        self._ask_head = head
        self._head: tuple[Head, bool] | None = None
        self._take: Callable[[Head, bytes], bool] | None = take

    def take(self, piece: bytes) -> int | None:
        if self._head is None:
            self._head = self._ask_head()
        head, is_success = self._head
        if not is_success or self._take is None:
            return super().take(piece)
        self.is_enough = not self._take(head, piece)
        return -1 if self.is_enough else None

    def clear(self) -> None:
        super().clear()
        # The handle knows this until its next request, and so would keep alive whoever takes it.
        self._take = None


class Outgoing:
    """A body that is handed out piece by piece, no faster than a throttle allows."""

    def __init__(self, body: bytes | memoryview, throttle: Throttle | None) -> None:
        self._body = memoryview(body)
        self._at = 0
        self._throttle = throttle

    def read(self, most: int) -> bytes:
        if self._throttle is not None:
            most = min(most, self._throttle.piece())
        piece = bytes(self._body[self._at : self._at + most])
        if self._throttle is not None:
            self._throttle.take(len(piece))
        self._at += len(piece)
        return piece

    def seek(self, offset: int, origin: int) -> int:
        """libcurl sends a body again when a connection that it kept turns out to be closed."""
        if origin != os.SEEK_SET:
            return int(pycurl.SEEKFUNC_CANTSEEK)
        self._at = offset
        return int(pycurl.SEEKFUNC_OK)

    def forget(self) -> None:
        """Let go of the body."""
        self._body = memoryview(b"")
