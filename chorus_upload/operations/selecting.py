"""Turns what the user names on the command line into what the configuration has."""

from __future__ import annotations

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.journal import versions
from chorus_upload.journal.journal import Journal


def require_version(journal: Journal, label: str | None) -> None:
    """Raise ConfigError when the journal has no version of that label; None is always fine."""
    if label is not None and versions.find(journal, label) is None:
        raise ConfigError(f"there is no version {label} in the journal", hint="`journal list` shows them.")


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
