"""Environment variables that take the place of a key: `CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN` and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chorus_upload.config.generations import PLACE_VARIABLES
from chorus_upload.config.keys import CREDENTIALS
from chorus_upload.config.reading import Complaints, Entry, Given, convert

_PREFIX = "CHORUS_UPLOAD_"
_KEYS = tuple(key for key in CREDENTIALS if key.current)


def variable_for(place: str, modality: str, key: str) -> str:
    """The variable that overrides a credential of a place, e.g. `CHORUS_UPLOAD_JOURNAL_AZURE_SAS_TOKEN`."""
    name = re.sub(r"[^A-Za-z0-9]", "_", modality)
    return f"{_PREFIX}{PLACE_VARIABLES[place].replace('*', name)}_{key}".upper()


def overrides_for(place: str, modality: str, *, environ: Mapping[str, str], complaints: Complaints) -> Given:
    """What the environment says of the credentials of this very place."""
    found: Given = {}
    for key in _KEYS:
        variable = variable_for(place, modality, key.name)
        origin = f"environment variable {variable}"
        if text := environ.get(variable, "").strip():
            try:
                found[key.field] = Entry(convert(key, text), origin)
            except ValueError as error:
                complaints.error(origin, str(error))
    return found


def warn_of_unknown(environ: Mapping[str, str], modalities: tuple[str, ...], complaints: Complaints) -> None:
    """Warn of variables that look like overrides and are none: misspelled, or for a modality that is not there."""
    known = {
        variable_for(place, modality, key.name)
        for place in PLACE_VARIABLES
        for modality in (modalities if "*" in place else ("",))
        for key in _KEYS
    }
    starts = tuple(f"{_PREFIX}{place.removesuffix('*')}" for place in PLACE_VARIABLES.values())
    for name in sorted(environ):
        if name.upper().startswith(starts) and name not in known:
            complaints.warning(f"environment variable {name}", "overrides nothing; is it misspelled?")
