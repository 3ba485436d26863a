"""Fixtures for all tests. Emulators are started once for a session (once for each pytest-xdist worker)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulators import Azurite, EmulatorMissing, running_azurite


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A running Azurite. Fails, and never skips, when it is missing."""
    try:
        with running_azurite(tmp_path_factory.mktemp("azurite")) as service:
            yield service
    except EmulatorMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def azure_container(azurite: Azurite) -> str:
    """The name of a fresh, empty container."""
    return azurite.create_container()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory for one test, apart from what else the test keeps in `tmp_path`."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


@pytest.fixture(autouse=True)
def no_credentials_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never see the credentials, proxies and trust of the machine they run on."""
    for name in (
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
