"""docs/architecture.md draws the house as it stands."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

from chorus_upload.model import Evidence
from chorus_upload.storage.azure import AzureStore
from tests.docs.markdown import ROOT, code_words, read, section

ARCHITECTURE = read("docs/architecture.md")
PACKAGE = ROOT / "chorus_upload"
PROJECT = tomllib.loads(read("pyproject.toml"))

# The program itself, and its version: every room may know them.
EVERYWHERE = {"__init__", "__main__"}


def rooms() -> dict[str, tuple[set[str], set[str]]]:
    """Each room by its path below the package: what it may import, and which libraries it may use."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for where, _, may_import, libraries in section(ARCHITECTURE, "The rooms").rows():
        name = where.strip("`").removeprefix("chorus_upload/").removesuffix(".py")
        above = found.get(name.partition("/")[0], (set[str](), set[str]()))
        own = set(re.findall(r"`(\w+)`", may_import)) or (above[0] if may_import == "as above" else set())
        used = set() if libraries == "none" else set(libraries.split(", "))
        found[name] = (own, used)
    return found


ROOMS = rooms()
LAYERS = {name: parts for name, parts in ROOMS.items() if "/" not in name}


def imports_of(path: Path) -> tuple[set[str], set[str]]:
    """Which rooms, and which libraries, a module imports anywhere in it."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            modules = [f"chorus_upload.{each.name}" for each in node.names] if node.module == "chorus_upload" else []
            modules = modules or [node.module or ""]
        for module in modules:
            first, _, rest = module.partition(".")
            if first == "chorus_upload":
                inside.add(rest.partition(".")[0] or "__init__")
            elif first not in sys.stdlib_module_names and first != "_typeshed":
                outside.add(first)
    return inside - {"__version__"}, outside


def modules_of(room: str) -> list[Path]:
    package = PACKAGE / room
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def test_every_package_and_every_module_beside_them_has_a_room() -> None:
    packages = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - EVERYWHERE

    assert set(ROOMS) == packages | modules


@pytest.mark.parametrize("room", LAYERS)
def test_imports_run_downwards_only(room: str) -> None:
    for path in modules_of(room):
        inside, _ = imports_of(path)
        assert inside - EVERYWHERE - {room} <= LAYERS[room][0], path


@pytest.mark.parametrize("room", LAYERS)
def test_libraries_stay_in_their_rooms(room: str) -> None:
    used = set().union(*(imports_of(path)[1] for path in modules_of(room)))

    assert used == LAYERS[room][1]


def test_no_room_can_reach_itself_through_others() -> None:
    def below(room: str) -> set[str]:
        direct = LAYERS[room][0]
        return direct.union(*map(below, direct))

    for room in LAYERS:
        assert room not in below(room)
    for room in ("transfer", "storage"):
        assert room not in below("journal")
        assert "journal" not in below(room)


def test_every_module_that_is_named_exists() -> None:
    for word in code_words(ARCHITECTURE):
        if word.endswith((".py", "/")) and "/" in word:
            assert (PACKAGE / word).exists() or (ROOT / word).exists(), word


def test_every_kind_of_evidence_is_explained() -> None:
    rows = list(section(ARCHITECTURE, "Evidence").rows())

    assert [row[0].strip("`") for row in rows] == [str(each) for each in Evidence]
    one_request = inspect.signature(AzureStore).parameters["block_size"].default
    assert f"up to {one_request >> 20} MiB" in rows[0][2]


def test_every_dependency_is_given_a_reason() -> None:
    required = [re.split(r"[\[<>=~!;]", each)[0] for each in PROJECT["project"]["dependencies"]]
    rows = list(section(ARCHITECTURE, "Dependencies").rows())

    assert [row[0].strip("`") for row in rows] == required
    for row in rows:
        assert len(row) == 4
        assert all(row)


def test_what_is_called_unused_is_unused() -> None:
    unused = [row[0].strip("`") for row in section(ARCHITECTURE, "Dependencies").rows() if "imported nowhere" in row[1]]
    imported = set().union(*(imports_of(path)[1] for path in PACKAGE.rglob("*.py")))

    assert not imported & set(unused)
