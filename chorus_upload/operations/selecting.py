"""Turns what the user names on the command line into what the configuration has."""

from __future__ import annotations

from difflib import get_close_matches

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError, LayoutError
from chorus_upload.events import Emit, Notice
from chorus_upload.journal import deliveries, files, versions
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.versions import Version
from chorus_upload.layout import unfit_label
from chorus_upload.operations.central import Keys


def known_version(journal: Journal, label: str) -> Version:
    """The version of that label; ConfigError that names those whose labels are like it."""
    known = {each.label: each for each in versions.ordered(journal)}
    if label not in known:
        if deliveries.is_folder_of_keys(journal, label):
            raise ConfigError(
                f"there is no version {label} in the journal",
                hint=f"{label} is a folder that paths name. `journal list` shows the versions, which are the updates.",
            )
        like = get_close_matches(label, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(like)}?" if like else "`journal list` shows them."
        raise ConfigError(f"there is no version {label} in the journal", hint=hint)
    return known[label]


def require_fit(journal: Journal, label: str) -> None:
    """Raise LayoutError for a label that a new version cannot have. One that the journal has already is none."""
    labels = [each.label for each in versions.ordered(journal)]
    reason = None if label in labels else unfit_label(label, labels)
    if reason is not None:
        raise LayoutError(reason, hint="Without --version it is the time of the update.")


def require_not_older(journal: Journal, label: str) -> None:
    """Raise ConfigError for the label of a version after which another one was begun.

    Only the newest version can be amended: what is recorded in an older one would change what all newer ones say.
    """
    known = versions.ordered(journal)
    if any(each.label == label for each in known[:-1]):
        raise ConfigError(
            f"version {label} is older than {known[-1].label}: what is recorded in it now would change what the newer"
            " versions say",
            hint=f"Leave --version out, or give a new name. Only the newest version, {known[-1].label}, can be"
            " amended.",
        )


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


def chosen_label(journal: Journal, settings: Settings, label: str | None) -> str | None:
    """The label as it was given: that of a version, or the version that paths name, where their patterns have one.

    ConfigError for any other, and, also without a label, as long as there is no version.
    """
    keys = Keys(settings)
    if keys.with_own_folders:
        deliveries.define_folders(journal, keys.folder)
        if label is not None and not versions.find(journal, label) and deliveries.has_folder(journal, label):
            return label
    chosen_version(journal, label)
    return label


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


def tell_of_others(journal: Journal, settings: Settings, *, url: str, emit: Emit) -> None:
    """Say what is still to be sent of modalities that the configuration does not have, or not any more."""
    found = deliveries.pending_beside(journal, url=url, modalities=settings.modalities)
    for modality, tally in found.items():
        emit(
            Notice(
                f"{modality} is no modality of this configuration: {tally.files:,} files of it that are pending are"
                " left out (supported_modalities, or its section, says what is sent)"
            )
        )


def chosen_patients(journal: Journal, patients: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The patients as they were asked for; ConfigError for one that the journal has never had."""
    if patients and (unknown := files.unknown_patients(journal, patients)):
        raise ConfigError(
            f"the journal has no files of patient {' or '.join(unknown)}",
            hint="Patients are called as in the paths of their files: capitals and leading zeros count.",
        )
    return patients
