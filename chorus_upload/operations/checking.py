"""`config check`: what is wrong with the configuration, as far as it can be told without the cloud."""

from __future__ import annotations

from chorus_upload.config.settings import Settings
from chorus_upload.config.showing import Finding, Level, check
from chorus_upload.storage.open import missing_libraries, unsupported


def check_settings(settings: Settings) -> list[Finding]:
    """What this machine alone can tell, and which places this installation cannot open."""
    lacking = [*unsupported(settings), *missing_libraries(settings)]
    beyond_us = [Finding(Level.ERROR, "this version", text) for text in lacking]
    return [*check(settings), *beyond_us]
