"""Write docs/configuration.md from the declaration of the keys. Run it after changing chorus_upload/config."""

from __future__ import annotations

from pathlib import Path

from chorus_upload.config.reference import markdown

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

if __name__ == "__main__":
    DOCUMENT.write_text(markdown(), encoding="utf-8", newline="\n")
    print(f"wrote {DOCUMENT}")
