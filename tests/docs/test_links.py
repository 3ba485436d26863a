"""Documents find each other, and speak of nothing outside the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import DOCUMENTS, ROOT, anchors, blocks, code_words, links, read

WIDTH = 125

pytestmark = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def test_links_lead_somewhere(path: Path) -> None:
    for link in links(read(path)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.resolve().is_relative_to(ROOT)
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(read(target)), link


def test_the_reader_gets_here_from_the_readme(path: Path) -> None:
    reached, pending = set[Path](), [ROOT / "README.md"]
    while pending:
        here = pending.pop()
        reached.add(here)
        named = ((here.parent / link.partition("#")[0]).resolve() for link in links(read(here)))
        pending += [each for each in named if each.suffix == ".md" and each not in reached]

    assert path in reached


def test_files_of_the_repository_that_are_named_exist(path: Path) -> None:
    tops = "chorus_upload|migrations|scripts|tests|docs"
    for word in code_words(read(path)):
        if found := re.match(rf"(?:{tops})/[\w/.]*", word):
            assert (ROOT / found[0]).exists(), word


def test_blocks_of_shell_say_which_program_they_are_for(path: Path) -> None:
    for block in blocks(read(path)):
        assert block.marker == "" or re.fullmatch(
            r"not run, it [\w ]+|exit \d+|make room|said elsewhere|not output|file [\w.-]+", block.marker
        )


def test_nothing_is_said_of_the_machine_that_it_was_written_on(path: Path) -> None:
    assert not re.search(r"/(?:work|root|home/\w+|tmp)\b", read(path))
