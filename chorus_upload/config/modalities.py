"""Which modalities a site has, and whether the sections of the file agree with that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chorus_upload.config.reading import Complaints, nearest
from chorus_upload.errors import LayoutError
from chorus_upload.layout import STANDARD_MODALITIES, check_modality_name


def choose_modalities(
    written: tuple[str, ...] | None,
    *,
    origin: str,
    sections: Sequence[str],
    has_default_path: bool,
    complaints: Complaints,
) -> tuple[str, ...]:
    """The modalities of this site, each once, `Metadata` among them.

    `written` is what the file says at `origin`, None when it says nothing; `sections` are the modalities that
    have a `[site_path.…]`. Complains of names that cannot be, and of sections whose files would not be sent.
    """
    named = _valid_names(STANDARD_MODALITIES if written is None else written, origin=origin, complaints=complaints)
    if written is None or "Metadata" not in written:
        named = [name for name in named if name != "Metadata"]
        # Not an error: sites that never had a path for it would have to change a file that works.
        if has_default_path or "Metadata" in sections:
            named.append("Metadata")
    for section in sections:
        if section not in named:
            _complain_of_section(section, named, origin=origin, complaints=complaints)
    return tuple(named)


def _valid_names(written: Iterable[str], *, origin: str, complaints: Complaints) -> list[str]:
    names = list(dict.fromkeys(written))
    # Names that differ only in case would meet in one directory on many systems.
    spelling = {name.lower(): name for name in (*names, *STANDARD_MODALITIES)}
    valid = []
    for name in names:
        try:
            check_modality_name(name)
        except LayoutError as error:
            complaints.error(origin, error.message)
            continue
        if spelling[name.lower()] != name:
            complaints.error(origin, f"{name} must be written {spelling[name.lower()]}")
        valid.append(name)
    return valid


def _complain_of_section(section: str, named: list[str], *, origin: str, complaints: Complaints) -> None:
    where = f"[site_path.{section}]"
    if section in STANDARD_MODALITIES:
        # Templates have a section for each of these; a site may do without one and leave its section.
        complaints.warning(where, f"nothing is sent from here: {section} is not in {origin}")
        return
    near = nearest(section, named)
    meant = f"did you mean [site_path.{near}]?" if near else f"known are {', '.join(named)}"
    complaints.error(where, f"{section} is not one of the modalities of {origin}; {meant}")
