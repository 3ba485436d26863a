"""The parts of a Markdown document that can be held to the truth: blocks, links, headings, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"<!-- test: (?P<marker>.*?) -->\n\Z")
_LINK = re.compile(r"\[[^]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^(?P<level>#+) (?P<title>.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `marker` is what a comment of the form `<!-- test: … -->` before it says of it."""

    language: str
    text: str
    marker: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and what follows it up to the next one."""

    title: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(
                language=found["language"],
                text=found["text"],
                marker=marker["marker"] if (marker := _MARKER.search(self.text, 0, found.start())) else "",
            )
            for found in _FENCE.finditer(self.text)
        ]

    def rows(self) -> Iterator[list[str]]:
        """The rows of the tables, without their heads."""
        lines = self.text.splitlines()
        for above, line in zip(["", *lines], lines, strict=False):
            if line.startswith("|") and above.startswith("|") and not set(line) <= set("|-: "):
                yield [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def sections(text: str) -> list[Section]:
    """The sections of a document in order. What stands before the first heading is left out."""
    blank = _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    starts = list(_HEADING.finditer(blank))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    return [
        Section(text[start.start("title") : start.end("title")], text[start.end() : end])
        for start, end in zip(starts, ends, strict=True)
    ]


def section(text: str, title: str) -> Section:
    (found,) = (each for each in sections(text) if each.title == title)
    return found


def blocks(text: str) -> list[Block]:
    """All blocks of a document in order."""
    return [block for each in sections(text) for block in each.blocks]


def links(text: str) -> list[str]:
    """The targets of all links."""
    return [found["target"] for found in _LINK.finditer(_FENCE.sub("", text))]


def anchors(text: str) -> set[str]:
    """What links to a place in this document may name, made from headings as GitHub makes it."""
    titles = (re.sub(r"[^\w\- ]", "", each.title.lower()) for each in sections(text))
    return {title.replace(" ", "-") for title in titles}


def code_words(text: str) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))
