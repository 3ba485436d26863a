"""How many journals are kept beside the cloud's."""

from __future__ import annotations

import pytest

from chorus_upload.errors import ConfigError
from tests.config.conftest import MINIMAL, Load


def test_three_unless_told_otherwise(load_text: Load) -> None:
    assert load_text(MINIMAL).journal.backups == 3
    settings = load_text(MINIMAL.replace("[journal]", "[journal]\nbackups = 0"))
    assert settings.journal.backups == 0
    assert settings.origins["journal.backups"] == "[journal] backups"


@pytest.mark.parametrize("written", ["-1", "1001", '"all"', "2.5"])
def test_what_is_no_number_of_backups(load_text: Load, written: str) -> None:
    with pytest.raises(ConfigError, match=r"\[journal\] backups: must be a whole number from 0 to 1,000"):
        load_text(MINIMAL.replace("[journal]", f"[journal]\nbackups = {written}"))
