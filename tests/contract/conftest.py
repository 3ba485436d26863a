"""Every store that the contract is held against. To add one, add a Place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import AccountKey
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import Store
from tests.emulators import Azurite

IMPATIENT = Retry(patience=10, first=0.01, longest=0.05)


@dataclass(frozen=True, slots=True)
class Place:
    """One empty place, which can be opened any number of times, and a place that does not exist."""

    kind: str
    open: Callable[[], Store]
    open_missing: Callable[[], Store]


@pytest.fixture(params=["local", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        root = tmp_path / "store"
        root.mkdir()
        return Place("local", lambda: LocalStore(root), lambda: LocalStore(tmp_path / "missing"))
    azurite: Azurite = request.getfixturevalue("azurite")
    container: str = request.getfixturevalue("azure_container")

    def open_azure(container: str) -> Store:
        return AzureStore(
            azurite.account_url,
            container,
            prefix="some/prefix",
            credential=AccountKey(azurite.account, azurite.key),
            retry=IMPATIENT,
            page_size=500,
        )

    return Place("azure", lambda: open_azure(container), lambda: open_azure("missing"))


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened
