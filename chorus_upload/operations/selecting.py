"""Turns what the user names on the command line into what the configuration has."""

from __future__ import annotations

from difflib import get_close_matches

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.journal import files, versions
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.versions import Version


def known_version(journal: Journal, label: str) -> Version:
    """The version of that label; ConfigError that names those whose labels are like it."""
    known = {each.label: each for each in versions.ordered(journal)}
    if label not in known:
        like = get_close_matches(label, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(like)}?" if like else "`journal list` shows them."
        raise ConfigError(f"there is no version {label} in the journal", hint=hint)
    return known[label]


def chosen_version(journal: Journal, label: str | None) -> Version:
    """The version of that label, or for None the last one; ConfigError when there is none.

    Without any version there is nothing to send, to list or to check: a journal that was only just made, because
    its address was mistyped, must not pass for one whose files have all arrived.
    """
    if label is not None:
        return known_version(journal, label)
    last = versions.last(journal)
    if last is None:
        raise ConfigError(
            "there is no version in the journal yet",
            hint="`journal update` makes the first one. Or is this not the journal that you mean?",
        )
    return last


def selected_modalities(settings: Settings, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The configured modalities of these names, in any case; all of them for None.

    Raises ConfigError that lists the configured ones when a name is unknown.
    """
    if names is None:
        return settings.modalities
    known = {name.casefold(): name for name in settings.modalities}
    unknown = [name for name in names if name.casefold() not in known]
    if unknown:
        raise ConfigError(
            f"unknown modality: {', '.join(unknown)}", hint=f"Configured are: {', '.join(settings.modalities)}."
        )
    return tuple(dict.fromkeys(known[name.casefold()] for name in names))


def chosen_patients(journal: Journal, patients: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The patients as they were asked for; ConfigError for one that the journal has never had."""
    if patients and (unknown := files.unknown_patients(journal, patients)):
        raise ConfigError(
            f"the journal has no files of patient {' or '.join(unknown)}",
            hint="Patients are called as in the paths of their files: capitals and leading zeros count.",
        )
    return patients
