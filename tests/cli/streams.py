"""Streams that pretend to be terminals, pipes and files of any encoding."""

from __future__ import annotations

import io


class Pretended(io.TextIOWrapper):
    """A text stream in memory. `shown` is what was written, decoded again."""

    def __init__(self, *, encoding: str = "utf-8", terminal: bool = False) -> None:
        self.kept = io.BytesIO()
        self._terminal = terminal
        # Strict, as a console is unless somebody takes care.
        super().__init__(self.kept, encoding=encoding, errors="strict", newline="\n")

    def isatty(self) -> bool:
        return self._terminal

    @property
    def shown(self) -> str:
        self.flush()
        return self.kept.getvalue().decode(self.encoding)
