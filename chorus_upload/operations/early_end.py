"""What a command had done when it ended before its work did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chorus_upload.errors import ChorusError
from chorus_upload.events import Emit, EndedEarly


@contextmanager
def told_early_end(emit: Emit, counts: Callable[[], EndedEarly]) -> Iterator[None]:
    """Emit `counts()` when the block is interrupted, or ended by an error of ours, which passes."""
    try:
        yield
    except (ChorusError, KeyboardInterrupt):
        emit(counts())
        raise
