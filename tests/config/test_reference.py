"""The template, the reference and the help say what the program reads: no key more, no key less."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chorus_upload.config.generations import SECTIONS, find_section
from chorus_upload.config.keys import CREDENTIALS
from chorus_upload.config.loading import load
from chorus_upload.config.reading import convert
from chorus_upload.config.reference import help_text, markdown

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "config.toml.template"
DOCUMENT = ROOT / "docs" / "configuration.md"


def _with_all_keys(text: str) -> str:
    return re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)


def _keys(table: Mapping[str, Any], name: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    for word, value in table.items():
        if isinstance(value, dict):
            yield from _keys(value, (*name, word))
        else:
            section = find_section(name)
            yield _home(section.name if section else ".".join(name)), word


def _home(section: str) -> str:
    """Where a key is documented: all sections of credentials have the same keys."""
    return "*.auth" if section.endswith(".auth") else section


def test_the_template_has_every_key_and_no_other() -> None:
    document = tomllib.loads(_with_all_keys(TEMPLATE.read_text(encoding="utf-8")))
    declared = {(_home(section.name), key.name) for section in SECTIONS for key in section.keys if key.current}
    assert set(_keys(document)) == declared


@pytest.fixture(autouse=True)
def beside_the_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template names a file with certificates and one of the environment, which have to be there."""
    (tmp_path / "hospital-ca.pem").touch()
    (tmp_path / "chorus.env").touch(mode=0o600)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("change", [str, _with_all_keys])
def test_the_template_loads(tmp_path: Path, change: Any) -> None:  # noqa: ANN401
    file = tmp_path / "config.toml"
    file.write_text(change(TEMPLATE.read_text(encoding="utf-8")), encoding="utf-8")
    file.chmod(0o600)
    settings = load(file, environ={})
    assert settings.modalities == ("OMOP", "Images", "Waveforms", "Metadata")
    if change is str:
        assert settings.warnings == ()


def test_the_optional_keys_of_the_template_show_their_defaults(tmp_path: Path) -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    results = []
    for written in (text, re.sub(r"^# (?=\w+ = )", "", text.partition("[central_path]")[0], flags=re.MULTILINE)):
        file = tmp_path / "config.toml"
        rest = "" if written is text else "[central_path]" + text.partition("[central_path]")[2]
        file.write_text(written + rest, encoding="utf-8")
        file.chmod(0o600)
        # Of these there is none by default, so the template can only show examples.
        none = ("bandwidth_limit", "ca_bundle", "proxy", "environment_file")
        examples: dict[str, object] = dict.fromkeys(none)
        settings = load(file, environ={})
        examples["sites"] = {
            name: site.model_copy(update={"follow_links": None}) for name, site in settings.sites.items()
        }
        results.append(settings.model_copy(update={"origins": {}, **examples}))
    assert results[0] == results[1]


def test_every_example_is_valid() -> None:
    for section in SECTIONS:
        for key in section.keys:
            convert(key, tomllib.loads(f"key = {key.example}")["key"])


def test_every_key_leads_somewhere_that_the_settings_have() -> None:
    """The slot of each credential is a field of `Auth`; names are unique in their section."""
    from chorus_upload.config.settings import Auth

    assert {key.field for key in CREDENTIALS} <= set(Auth.model_fields)
    for section in SECTIONS:
        names = [key.name for key in section.keys]
        assert len(names) == len(set(names)), section.name


def test_the_reference_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == markdown(), "run: python scripts/write_configuration_reference.py"


@pytest.mark.parametrize("text", [markdown(), help_text()])
def test_every_key_is_described(text: str) -> None:
    for section in SECTIONS:
        assert section.name.replace("*", "<Modality>") in text
        for key in section.keys:
            if key.current:
                assert key.name in text, f"{section.name} {key.name}"


def test_the_help_fits_the_terminal() -> None:
    assert max(len(line) for line in help_text(width=90).splitlines() if " = " not in line) <= 90


def test_loading_imports_neither_terminal_nor_database_nor_cloud() -> None:
    code = (
        "import sys, chorus_upload.config.loading, chorus_upload.config.showing, chorus_upload.config.reference;"
        "print(*sorted(name for name in ('typer', 'rich', 'sqlalchemy', 'azure', 'fsspec', 'requests')"
        " if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
