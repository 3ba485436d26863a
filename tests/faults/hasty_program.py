"""The real program in a hurry: what it would wait for, it waits for a small part of, and small files have blocks.

Nothing else about it is changed: it tries again as often, and gives up for the same reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chorus_upload.storage import open as opening
from chorus_upload.storage import s3_requests
from chorus_upload.storage.curl import HttpClient
from chorus_upload.storage.retry import Retry
from tests.e2e.mortal_program import import_all, serve

BLOCK = 256 << 10
"""What is larger goes in blocks, and is fetched in blocks."""
PART = 5 << 20
"""The same for S3, which takes no smaller parts."""
SILENCE = 1.0
"""After so many seconds in which nothing moves, a request counts as lost."""
_FASTER = 20


def _hurry() -> None:
    wait = Retry._wait

    def shorter(self: Retry, attempts: int, asked: float | None) -> float:
        return wait(self, attempts, None) / _FASTER + (asked or 0.0)

    Retry._wait = shorter  # type: ignore[method-assign]
    HttpClient._exchange = _impatient(HttpClient._exchange, place=4)  # type: ignore[method-assign]
    s3_requests.Requests._exchange = _impatient(s3_requests.Requests._exchange, place=1)  # type: ignore[method-assign]
    for open_it, name, size in (
        (opening._azure, "block_size", BLOCK),
        (opening._s3, "part_size", PART),
        (opening._gs, "chunk_size", BLOCK),
    ):
        (open_it.__kwdefaults__ or {})[name] = size
    opening._SOURCE_BLOCK = BLOCK


def _impatient(real: Callable[..., Any], *, place: int) -> Callable[..., Any]:
    """The same function, when the argument at that place is for how long there may be silence."""

    def exchange(self: object, *arguments: object) -> Any:  # noqa: ANN401 - whatever the real one gives
        return real(self, *arguments[:place], SILENCE, *arguments[place + 1 :])

    return exchange


if __name__ == "__main__":
    import_all()
    _hurry()
    serve()
