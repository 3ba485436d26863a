"""The layers of docs/architecture.md, held by reading every import: those at the top and those inside functions."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "chorus_upload"

PURE = {"errors", "events", "layout", "model"}
GROUND = PURE | {"config"}
# Each part of the package, and the parts that it may import. The version, in `chorus_upload` itself, is for all.
MAY_IMPORT = {
    "errors": set[str](),
    "model": set[str](),
    "events": {"model"},
    "layout": {"errors"},
    "config": PURE,
    "journal": GROUND,
    "storage": GROUND,
    "transfer": GROUND | {"storage"},
    "scripting": {"errors"},
    "operations": GROUND | {"journal", "scripting", "storage", "transfer"},
    "cli": GROUND | {"operations", "storage"},
    "__main__": {"cli"},
    "__init__": set[str](),
}

# Who may import what is not ours. Only the standard library is for all.
AT_HOME = {
    "typer": {"cli"},
    "rich": {"cli"},
    "click": {"cli"},
    "pydantic": {"config"},
    "sqlalchemy": {"journal"},
    "alembic": {"journal"},
    "sqlite3": {"journal"},
    "xxhash": {"transfer"},
    "azure": {"storage"},
    "requests": {"storage"},
    "urllib3": {"storage"},
    "pycurl": {"storage"},
    "certifi": {"storage"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "aiobotocore": {"storage"},
    "botocore": {"storage"},
    "aiohttp": {"storage"},
    "google": {"storage"},
    "awscrt": {"storage"},
    "backports": {"storage"},
    "paramiko": {"storage"},
    "smbclient": {"storage"},
    "smbprotocol": {"storage"},
    "compression": {"storage"},
    "obstore": {"storage"},
}

# What the other parts know of storage: the contracts, and how to get what keeps them. Never a kind of store.
DOORS_OF_STORAGE = {
    "condition_check",
    *("bandwidth", "durable", "identity", "keys", "names", "network", "open", "parts", "store", "source", "target"),
    *("liveness", "mounts", "temporary", "traffic", "tries"),
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module, as `file:line imports name`."""

    file: Path
    line: int
    name: str

    @property
    def importer(self) -> str:
        """The part of the package that it is in."""
        return self.file.relative_to(PACKAGE).parts[0].removesuffix(".py")

    @property
    def ours(self) -> str | None:
        """The part of the package that is imported; None for what is not ours."""
        package, _, rest = self.name.partition(".")
        return (rest.partition(".")[0] or "__init__") if package == "chorus_upload" else None

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports() -> Iterator[Import]:
    for file in _modules():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    yield from (Import(file, node.lineno, each.name) for each in names)
                case ast.ImportFrom(module=module, level=0, names=names):
                    yield from (Import(file, node.lineno, _full_name(module or "", each.name)) for each in names)
                case ast.ImportFrom():
                    yield Import(file, node.lineno, "a relative name")


def _full_name(module: str, name: str) -> str:
    """`from chorus_upload.journal import custody` imports a module, `from chorus_upload.errors import …` a name."""
    path = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else module


IMPORTS = list(_imports())


def test_every_part_of_the_package_has_its_place() -> None:
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or _is_package(path)}

    assert parts == MAY_IMPORT.keys()


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").exists()


def test_imports_run_downwards() -> None:
    upwards = [
        str(each) for each in IMPORTS if each.ours not in (None, "__init__", each.importer, *MAY_IMPORT[each.importer])
    ]

    assert upwards == []


def test_journal_and_storage_never_meet() -> None:
    both = {"journal"}, {"storage", "transfer"}
    met = [
        str(each)
        for each in IMPORTS
        for one, other in (both, both[::-1])
        if each.importer in one and each.ours in other
    ]

    assert met == []


def test_what_is_not_ours_stays_at_home() -> None:
    strangers = [
        str(each)
        for each in IMPORTS
        if each.ours is None and each.importer not in AT_HOME.get(each.name.partition(".")[0], {each.importer})
    ]
    unknown = {
        each.name.partition(".")[0]
        for each in IMPORTS
        if each.ours is None and each.name.partition(".")[0] not in sys.stdlib_module_names | AT_HOME.keys()
    }

    assert strangers == []
    # `_typeshed` is there for type checkers only.
    assert unknown <= {"_typeshed"}


def test_pure_modules_do_nothing_to_the_world() -> None:
    """They import neither what is not the standard library's nor anything that reads, writes, waits or starts."""
    harmless = {
        *("__future__", "collections", "dataclasses", "datetime", "enum", "errno", "re", "typing"),
        *("functools", "itertools", "string", "types"),
    }
    busy = [
        str(each)
        for each in IMPORTS
        if each.importer in PURE and each.ours is None and each.name.partition(".")[0] not in harmless
    ]

    assert busy == []


def test_nobody_but_storage_knows_a_kind_of_store() -> None:
    beside_the_doors = [
        str(each)
        for each in IMPORTS
        if each.ours == "storage"
        and each.importer != "storage"
        and each.name.removeprefix("chorus_upload.storage.") not in DOORS_OF_STORAGE
    ]

    assert beside_the_doors == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("chorus_upload.cli.app", "sqlalchemy alembic sqlite3 azure fsspec pydantic rich xxhash asyncio"),
        ("chorus_upload.operations.update", "alembic azure fsspec rich typer"),
        ("chorus_upload.storage.open", "azure fsspec google requests sqlalchemy"),
        ("chorus_upload.events", "typing_extensions pydantic pathlib subprocess socket"),
    ],
)
def test_importing_it_loads_nothing_heavy(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"

    # Coverage would measure the new process from within, and load much for that.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    assert set(heavy.split()) & set(run.stdout.split()) == set()


def test_an_installed_tool_finds_its_migrations(tmp_path: Path) -> None:
    """Laid out as `pyproject.toml` tells the build to, and far from the checkout, it can make a journal."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        wheel = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    installed = tmp_path / "installed"
    for source, target in ({name: name for name in wheel["packages"]} | wheel["force-include"]).items():
        path = installed / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, path)
    code = (
        "from pathlib import Path; from chorus_upload.journal.journal import Journal;"
        "import chorus_upload; print(chorus_upload.__file__); Journal.create(Path('journal.db')).close()"
    )

    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.stdout.strip(), run.stderr) == (str(installed / "chorus_upload" / "__init__.py"), "")
    assert (tmp_path / "journal.db").stat().st_size > 0
    assert (installed / "chorus_upload" / "config.toml.template").read_bytes() == (
        ROOT / "config.toml.template"
    ).read_bytes()
