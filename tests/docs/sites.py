"""Sites that documents speak of, as a reader would have them."""

from __future__ import annotations

from pathlib import Path

from tests.emulators import Azurite

LOCAL = """
[journal]
journaling_mode = "full"

[journal.local]
path = "{journal}"

[journal.source]
path = "central/journal.db"

[central_path]
path = "central/data"

[site_path.default]
path = "hospital"
"""

AZURE = """
[configuration]
retry_seconds = 1

[journal]
journaling_mode = "full"

[journal.local]
path = "journal.db"

[journal.source]
path = "az://{container}/journal.db"

[journal.source.auth]
azure_account_url = "{url}"
azure_sas_token = "{sas}"

[central_path]
path = "az://{container}/data"

[central_path.auth]
azure_account_url = "{url}"
azure_sas_token = "{sas}"

[site_path.default]
path = "hospital"
"""


def configure(home: Path, text: str, *, name: str = "config.toml") -> None:
    """Write a configuration for nobody else to read."""
    path = home / name
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def local_site(home: Path, *, journal: str = "journal.db", name: str = "config.toml") -> None:
    """A site whose cloud is the directory `central`."""
    (home / "central" / "data").mkdir(parents=True, exist_ok=True)
    configure(home, LOCAL.format(journal=journal), name=name)


def azure_site(home: Path, *, url: str, container: str, sas: str) -> None:
    """A site with a container."""
    configure(home, AZURE.format(url=url, container=container, sas=sas))


def azurite_site(home: Path, azurite: Azurite, container: str) -> None:
    """A site with a container of the emulator, and a token for it."""
    azure_site(home, url=azurite.account_url, container=container, sas=azurite.sas(container))
