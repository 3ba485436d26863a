"""Whether the central store lets an upload in: read in its token before anything is done, and watched after that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from chorus_upload.config.settings import Auth, AuthMode, CentralSettings, Location
from chorus_upload.errors import AccessDenied, CredentialsExpired, ObjectNotFound, StorageError
from chorus_upload.events import Event, Level, Notice
from chorus_upload.operations.access import ExpiryWatch, check_token
from tests.operations.conftest import Site

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
GOOD = "se=2026-12-31T00:00:00Z&sr=c&sp=racwdl&sig=SECRET"


def place(token: str) -> Location:
    auth = Auth(mode=AuthMode.SAS_TOKEN, azure_account_name="acct", azure_sas_token=SecretStr(token))
    return Location(path="az://c/data", auth=auth)


def place_by_connection_string(text: str) -> Location:
    auth = Auth(mode=AuthMode.CONNECTION_STRING, azure_connection_string=SecretStr(text))
    return Location(path="az://c/data", auth=auth)


def _ignore(event: Event) -> None:
    del event


def test_a_token_in_order_says_when_it_ends() -> None:
    told: list[Event] = []

    assert check_token(place(GOOD), emit=told.append, now=NOW) == datetime(2026, 12, 31, tzinfo=UTC)
    assert told == []


def test_a_token_that_ends_soon_is_worth_a_warning() -> None:
    told: list[Event] = []

    assert check_token(place(GOOD), emit=told.append, now=datetime(2026, 12, 30, tzinfo=UTC)) is not None
    assert told == [
        Notice("az://c/data: the SAS token expires on 2026-12-31 00:00 UTC; ask for a new one in time", Level.WARNING)
    ]


@pytest.mark.parametrize(
    ("token", "error", "said", "hint"),
    [
        (GOOD.replace("2026-12-31", "2026-06-15"), CredentialsExpired, "expired on 2026-06-15 00:00 UTC", "new SAS"),
        (GOOD.replace("racwdl", "rl"), AccessDenied, "to write (w), delete (d); it has sp=rl", "racwdl"),
        (GOOD.replace("racwdl", "racwl"), AccessDenied, "to delete (d)", "racwdl"),
        (GOOD.replace("racwdl", "acwd"), AccessDenied, "to read (r), list (l)", "racwdl"),
        (GOOD.replace("sr=c", "sr=b"), AccessDenied, "single blob", "whole container"),
        (GOOD.replace("sr=c", "ss=f&srt=co"), AccessDenied, "not for blobs (ss=f)", "whole container"),
        (f"{GOOD}&st=2026-06-16", AccessDenied, "not valid before 2026-06-16", "clock"),
        (GOOD.replace("&sig=SECRET", ""), AccessDenied, "no signature", "Ask"),
    ],
)
def test_a_token_that_is_no_good(token: str, error: type[StorageError], said: str, hint: str) -> None:
    connection_string = f"BlobEndpoint=https://acct.blob.core.windows.net;SharedAccessSignature={token}"

    for central in (place(token), place_by_connection_string(connection_string)):
        with pytest.raises(error, match="SAS token") as raised:
            check_token(central, emit=_ignore, now=NOW)

        assert type(raised.value) is error
        assert said in raised.value.message
        assert hint in (raised.value.hint or "")
        assert "SECRET" not in raised.value.message


@pytest.mark.parametrize(
    "central",
    [
        Location(path="/mnt/central"),
        Location(path="az://c/data", auth=Auth(mode=AuthMode.LOGIN, azure_account_name="acct")),
        place_by_connection_string("AccountName=acct;AccountKey=SECRET;EndpointSuffix=core.windows.net"),
    ],
    ids=["local", "login", "key"],
)
def test_without_a_token_there_is_nothing_to_read(central: Location) -> None:
    assert check_token(central, emit=_ignore, now=NOW) is None


def _submissions(site: Site) -> int:
    with closing(sqlite3.connect(site.local)) as database:
        return int(database.execute("SELECT count(*) FROM submission").fetchone()[0])


def test_nothing_is_begun_with_a_token_that_is_no_good(site: Site) -> None:
    site.update()
    expired = site.with_settings(central=CentralSettings(location=place("se=2020-01-01&sp=racwdl&sr=c&sig=SECRET")))

    with pytest.raises(CredentialsExpired):
        expired.upload()

    assert _submissions(site) == 0


def test_nothing_is_begun_when_there_is_no_such_place(site: Site) -> None:
    site.update()
    site.central.rmdir()

    with pytest.raises(ObjectNotFound):
        site.upload()

    assert _submissions(site) == 0


class Watched:
    """An upload of 100 bytes with a token that lives for an hour; time passes as a test says."""

    def __init__(self, *, expires: datetime | None = NOW + timedelta(hours=1)) -> None:
        self.seconds = 1_000.0
        self.warnings: list[str] = []
        self.watch = ExpiryWatch(expires, emit=self._take, clock=lambda: self.seconds, now=self._now)

    def _now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds - 1_000)

    def _take(self, event: Event) -> None:
        assert isinstance(event, Notice)
        assert event.level is Level.WARNING
        self.warnings.append(event.text)

    def look(self, done: int, *, after: float) -> list[str]:
        """The warnings so far, when `done` bytes are done so many seconds after the beginning."""
        self.seconds = 1_000 + after
        self.watch.look(done, 100)
        return self.warnings


def test_an_upload_that_will_take_longer_than_the_token_lives() -> None:
    upload = Watched()

    (warning,) = upload.look(1, after=100)

    # 99 more bytes at one in 100 seconds: 2 hours and 45 minutes.
    end, expires = (NOW + timedelta(seconds=each) for each in (10_000, 3_600))
    assert f"ends about {end.astimezone():%Y-%m-%d %H:%M}" in warning
    assert f"expires on {expires.astimezone():%Y-%m-%d %H:%M}" in warning
    assert "ask for a new one" in warning
    assert "nothing twice" in warning
    # Once is enough.
    assert upload.look(2, after=200) == [warning]


def test_an_upload_that_becomes_slow() -> None:
    upload = Watched()

    assert upload.look(10, after=100) == []
    assert upload.look(20, after=500) == []
    assert len(upload.look(21, after=1_200)) == 1


@pytest.mark.parametrize(
    ("done", "after"), [(1, 19), (0, 3_000), (100, 3_590)], ids=["too early", "nothing moved", "all is done"]
)
def test_when_nothing_can_be_said_of_the_end(done: int, after: float) -> None:
    assert Watched().look(done, after=after) == []


def test_a_token_that_does_not_say_when_it_ends() -> None:
    assert Watched(expires=None).look(1, after=3_000) == []


def test_an_end_beyond_every_calendar_is_told_all_the_same() -> None:
    upload = Watched()
    upload.seconds += 100_000
    upload.watch.look(1, 10**18)

    assert len(upload.warnings) == 1
