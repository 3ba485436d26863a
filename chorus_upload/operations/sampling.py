"""A random part of the files, chosen so that anybody can choose it again.

The *draw* of a file is the first eight bytes of the SHA-256 of `SEED KEY` (the seed in decimal, a space, the
central key in UTF-8), as a number with the first byte highest. Those with the smallest draws are the sample. So the
choice depends on the seed and the keys only, not on any order, and files that come later do not upset it.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from chorus_upload.errors import ConfigError

DRAWS = 1 << 64
"""Draws are whole numbers from 0 up to here, this one excluded."""

_SEEDS = 1_000_000_000
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?%")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Either a share of the files, as what their draws have to stay below, or a number of them."""

    text: str
    seed: int
    below: int | None = None
    number: int | None = None

    @classmethod
    def parse(cls, text: str, *, seed: int | None = None) -> Self:
        """What `1%`, `0.5%` or `100` means; a random seed if none is given. ConfigError for anything else."""
        text = text.strip()
        seed = secrets.randbelow(_SEEDS) if seed is None else seed
        if found := _SHARE.fullmatch(text):
            share = Fraction(found[1]) / 100
            if 0 < share <= 1:
                return cls(text=text, seed=seed, below=int(share * DRAWS))
        elif _NUMBER.fullmatch(text) and int(text) > 0:
            return cls(text=text, seed=seed, number=int(text))
        raise ConfigError(
            f"a sample of {text!r} makes no sense",
            hint="Write a share above 0% and up to 100%, like 1% or 0.5%, or a number of files, like 100.",
        )

    def draw(self, key: str) -> int:
        """The number that chance gives to a key."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {key}".encode()).digest()[:8], "big")

    def last(self, draws: Iterable[int]) -> int:
        """Of the draws of all files, the greatest that is in the sample; -1 when there are no files.

        At least one file is in it. A sample by number needs memory for so many draws, a share for none.
        """
        if self.number is None:
            return max((self.below or 0) - 1, min(draws, default=-1))
        smallest: list[int] = []
        for draw in draws:
            # Negative, because a heap gives the smallest, and the greatest is what has to go.
            if len(smallest) < self.number:
                heapq.heappush(smallest, -draw)
            elif draw < -smallest[0]:
                heapq.heapreplace(smallest, -draw)
        return -smallest[0] if smallest else -1
