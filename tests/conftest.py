"""Fixtures for all tests. Emulators are started once for a session (once for each pytest-xdist worker)."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.emulators import Azurite, EmulatorMissing, running_azurite
from tests.gs import Front, Service, running_fake_gcs, running_front, running_gcp_emulator
from tests.randomness import load_profile
from tests.s3 import SeaweedFS, running_seaweedfs

load_profile()

# Who runs the tests in the background of a script, or without a terminal, may have these ignored, and then whatever the
# tests start ignores them, too.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Have Python no longer look for garbage in what stays: thousands of tests, and what they import."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """A running SeaweedFS. Fails, and never skips, when it is missing."""
    # Not below the directories that pytest keeps: it holds what all tests have sent.
    with TemporaryDirectory() as directory:
        try:
            with running_seaweedfs(Path(directory)) as service:
                yield service
        except EmulatorMissing as error:
            pytest.fail(str(error), pytrace=False)


@pytest.fixture
def s3_bucket(seaweedfs: SeaweedFS) -> str:
    """The name of a fresh, empty bucket."""
    return seaweedfs.create_bucket()


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running fake-gcs-server: truthful about conditions on uploads in one request. Fails when it is missing."""
    try:
        with running_fake_gcs(tmp_path_factory.mktemp("fake-gcs")) as service:
            yield service
    except EmulatorMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def gcp_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running gcp-storage-emulator: truthful about MD5s and resumable uploads. Fails when it is missing."""
    try:
        with running_gcp_emulator(tmp_path_factory.mktemp("gcp-emulator")) as service:
            yield service
    except EmulatorMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def gs_front(fake_gcs: Service) -> Iterator[tuple[Front, Service]]:
    """fake-gcs-server with what it lacks."""
    with running_front(fake_gcs) as running:
        yield running


@pytest.fixture
def gcs(gs_front: tuple[Front, Service]) -> Service:
    """Google Cloud Storage, as far as it is needed here."""
    return gs_front[1]


@pytest.fixture
def gs_bucket(gcs: Service) -> str:
    """The name of a fresh, empty bucket."""
    return gcs.create_bucket()


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
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "STORAGE_EMULATOR_HOST",
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
