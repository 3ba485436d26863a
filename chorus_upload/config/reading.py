"""From the text of a `config.toml` to values in their slots; all that is wrong is collected, not only the first."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr, TypeAdapter, ValidationError

from chorus_upload.config.generations import SECTIONS, find_section, is_above_a_section
from chorus_upload.config.keys import Key, Section
from chorus_upload.config.local_paths import read_regular
from chorus_upload.errors import ConfigError

_LONGEST_FILE = 1 << 20
# The library takes hours for a key of very many parts. None of ours has more than four.
_DEEP_KEY = re.compile(r"""(?<![^\s.=#"'])(?:(?:"[^"\n]*+"|'[^'\n]*+'|[^\s.=#"']++)[ \t]*+\.[ \t]*+){64}""")
_LONGEST_SHOWN = 20
"""A longer value may be a credential in the wrong line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and where it comes from, e.g. `[central_path] path`."""

    value: Any
    origin: str


Given = dict[str, Entry]
"""What is known of the credentials of a place, by the field of `Auth`."""


@dataclass(slots=True)
class Complaints:
    """What is wrong with a file (raised together) and what is only worth knowing."""

    file: Path
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, where: str, problem: str) -> None:
        """Note something because of which the file cannot be used."""
        self._add(self.errors, where, problem)

    def warning(self, where: str, problem: str) -> None:
        """Note something that a person should know of."""
        self._add(self.warnings, where, problem)

    def _add(self, noted: list[str], where: str, problem: str) -> None:
        # Modalities that inherit a place find the same there.
        if (line := f"{self.file}: {where}: {problem}") not in noted:
            noted.append(line)

    def raise_if_any(self) -> None:
        """One ConfigError for all errors, one a line."""
        if self.errors:
            hint = "`chorus-upload config-help` describes every section and key"
            raise ConfigError("\n".join(self.errors), hint=hint)


def read_document(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. ConfigError when it is not there, not readable or not TOML."""
    try:
        # Windows editors put a byte order mark in front, which TOML does not know.
        text = read_regular(file).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: there is no such configuration file",
            hint=f"`chorus-upload config template {file}` writes one to fill in; -c names another file",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: this is not a text file in UTF-8", hint="save it again as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(text) > _LONGEST_FILE or _DEEP_KEY.search(text):
        raise ConfigError(f"{file}: this is no configuration: it is too long, or has keys of more parts than there are")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: this is no configuration: its lists or tables are too deep") from None
    except ValueError as error:
        hint: str | None = None
        if "\\" in str(error) or "hex value" in str(error):
            hint = r"""a Windows path takes / or single quotes: path = 'C:\data'"""
        raise ConfigError(f"{file}: this is not TOML: {error}", hint=hint) from None


def read_entries(document: Mapping[str, Any], complaints: Complaints) -> dict[str, Entry]:
    """The values of all keys by their slot. Empty texts count as absent, as templates have them."""
    entries: dict[str, Entry] = {}
    _read_table((), document, entries, complaints)
    return entries


def _read_table(
    name: tuple[str, ...], table: Mapping[str, Any], entries: dict[str, Entry], complaints: Complaints
) -> None:
    section = find_section(name)
    for word, value in table.items():
        inner = (*name, word)
        where = f"[{'.'.join(name)}] {word}" if name else word
        if key := section.find(word) if section else None:
            _read_key(key, Entry(value, where), _modality(name), entries, complaints)
        elif not isinstance(value, dict):
            complaints.error(where, _about_unknown_key(word, section, inner))
        elif find_section(inner) or is_above_a_section(inner):
            _read_table(inner, value, entries, complaints)
        else:
            complaints.error(f"[{'.'.join(inner)}]", f"unknown section; {_nearest_section(inner)}")


def _read_key(key: Key, given: Entry, modality: str, entries: dict[str, Entry], complaints: Complaints) -> None:
    if isinstance(given.value, str) and "\0" in given.value:
        complaints.error(given.origin, "holds a NUL character, which nothing here can have")
        return
    try:
        value = convert(key, given.value)
    except ValueError as error:
        complaints.error(given.origin, str(error))
        return
    if is_empty(value):
        return
    slot = key.slot.replace("*", modality)
    before = entries.setdefault(slot, Entry(value, given.origin))
    if before.value != value:
        complaints.error(given.origin, f"contradicts {before.origin}; keep one of the two")


def convert(key: Key, value: object) -> Any:  # noqa: ANN401 - the key's own type
    """`value` as the key's type. ValueError says what is expected; it never shows a secret."""
    parse = key.value.parse
    if parse is not None and isinstance(value, str) and value.strip():
        return parse(value)
    # To pydantic, true is the number 1; to whoever wrote it, it is a mistake.
    if not isinstance(value, bool) or key.value.annotation is bool:
        try:
            return TypeAdapter(key.value.annotation).validate_python(value)
        except ValidationError:
            pass
    problem = f"must be {key.value.expects}"
    if not key.value.is_secret:
        problem += f", not {_as_toml(value)}"
    if isinstance(value, str) and (near := nearest(value, key.value.choices)):
        problem += f'; did you mean "{near}"?'
    raise ValueError(problem)


def is_empty(value: object) -> bool:
    """Whether a converted value is a text without anything in it."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return isinstance(text, str) and not text.strip()


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The one of the known words that `word` may have been meant to be."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else None


def _about_unknown_key(word: str, section: Section | None, full_name: tuple[str, ...]) -> str:
    if any(other.name == ".".join(full_name) for other in SECTIONS):
        return f"this is a section: write its keys below a line [{'.'.join(full_name)}]"
    here = {key.name: key for key in section.keys} if section else {}
    elsewhere = {key.name for other in SECTIONS for key in other.keys if key.current}
    if word.lower() not in here and word.lower() in elsewhere:
        return f"unknown key here; it belongs in {_homes(word.lower())}"
    if near := nearest(word, here):
        return f"unknown key; did you mean {near}?"
    if near := nearest(word, elsewhere, cutoff=0.7):
        return f"unknown key; did you mean {near} in {_homes(near)}?"
    if not here:
        return "unknown key; a key stands below the line of its [section]"
    usual = [name for name, key in here.items() if key.current]
    return f"unknown key; this section has {', '.join(usual)}"


def _homes(key: str) -> str:
    """The sections that a key of the current form belongs in."""
    homes = [section for section in SECTIONS if (known := section.find(key)) and known.current]
    return " or ".join(f"[{_as_written(section.name)}]" for section in homes)


def _nearest_section(name: tuple[str, ...]) -> str:
    modality = _modality(name) or "<Modality>"
    known = {_as_written(section.name, modality) for section in SECTIONS}
    near = nearest(".".join(name), known)
    return f"did you mean [{near}]?" if near else "known are " + ", ".join(f"[{one}]" for one in sorted(known))


def _modality(section: tuple[str, ...]) -> str:
    return section[1] if section[0] == "site_path" else ""


def _as_written(section: str, modality: str = "<Modality>") -> str:
    return section.replace("*", modality)


def _as_toml(value: object) -> str:
    """`value` as it stands in the file, if it is so short that it can hardly be a credential in the wrong line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**_LONGEST_SHOWN):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= _LONGEST_SHOWN else "this text"
    return "a section" if isinstance(value, dict) else "a list" if isinstance(value, list) else "this"
