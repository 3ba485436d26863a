"""`config check`: what is wrong with the configuration, as far as it can be told without the cloud."""

from __future__ import annotations

from chorus_upload.config.settings import Settings
from chorus_upload.config.showing import Finding, Level, check
from chorus_upload.errors import ChorusError
from chorus_upload.operations.destination import require_marked
from chorus_upload.storage.open import missing_libraries, unsupported


def check_settings(settings: Settings) -> list[Finding]:
    """What this machine alone can tell, and which places this installation cannot open."""
    lacking = [*unsupported(settings), *missing_libraries(settings)]
    beyond_us = [Finding(Level.ERROR, "this version", text) for text in lacking]
    return [*check(settings), *beyond_us, *not_mounted(settings)]


def not_mounted(settings: Settings) -> list[Finding]:
    """Return an error when the central directory is another one than the journal knows, or cannot be recognised."""
    try:
        require_marked(settings, emit=lambda _: None)
    except ChorusError as error:
        return [trouble("[central_path]", error)]
    return []


def trouble(subject: str, error: ChorusError) -> Finding:
    """An error that stands in the way at this place."""
    return Finding(Level.ERROR, subject, error.message + (f" ({error.hint})" if error.hint else ""))
