"""What holds for every test: it asserts something."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
_ASSERTING = frozenset({"raises", "fail", "warns"})


@dataclass(frozen=True, slots=True)
class Function:
    """A function in the tests: whether it asserts something itself, and the names of all that it calls or hands on."""

    name: str
    asserts: bool
    uses: frozenset[str]

    @classmethod
    def of(cls, function: ast.FunctionDef) -> Function:
        nodes = list(ast.walk(function))
        attributes = [each for each in nodes if isinstance(each, ast.Attribute)]
        # `site.run` may assert something; `subprocess.run` does not.
        uses = {each.attr for each in attributes if not _is_of_the_library(each)}
        uses |= {each.id for each in nodes if isinstance(each, ast.Name)}
        asserts = any(isinstance(each, ast.Assert) for each in nodes) or not uses.isdisjoint(_ASSERTING)
        return cls(function.name, asserts, frozenset(uses))


def _is_of_the_library(attribute: ast.Attribute) -> bool:
    return isinstance(attribute.value, ast.Name) and attribute.value.id in sys.stdlib_module_names


def functions_in(texts: Iterable[str]) -> list[Function]:
    nodes = (node for text in texts for node in ast.walk(ast.parse(text)))
    return [Function.of(node) for node in nodes if isinstance(node, ast.FunctionDef)]


def without_assertion(functions: list[Function]) -> list[str]:
    """The tests that assert nothing, neither themselves nor by way of a helper."""
    tests = [each for each in functions if each.name.startswith("test_")]
    helpers = [each for each in functions if not each.name.startswith("test_")]
    asserting = {each.name for each in helpers if each.asserts}
    while more := {each.name for each in helpers if not each.uses.isdisjoint(asserting)} - asserting:
        asserting |= more
    return [each.name for each in tests if not each.asserts and each.uses.isdisjoint(asserting)]


def test_every_test_asserts_something() -> None:
    functions = functions_in(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))

    assert sum(each.name.startswith("test_") for each in functions) > 1_000
    assert without_assertion(functions) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def test_a(): run()", ["test_a"]),
        ("def test_a(): assert run()", []),
        ("def test_a():\n with pytest.raises(OSError): run()", []),
        ("def test_a(): check()\ndef check(): assert run()", []),
        ("def test_a(): outer()\ndef outer(): check()\ndef check(): assert run()", []),
        ("def test_a(): outer()\ndef outer(): check()\ndef check(): run()", ["test_a"]),
    ],
)
def test_the_check_itself(text: str, expected: list[str]) -> None:
    assert without_assertion(functions_in([text])) == expected
