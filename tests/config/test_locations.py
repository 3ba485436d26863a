"""A place may be written in the ways people write places, and never shows a credential."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from chorus_upload.config.accounts import account_of_connection_string
from chorus_upload.config.addresses import parse_address
from chorus_upload.config.settings import Auth, AuthMode, JournalSettings, Location


@pytest.mark.parametrize(
    ("written", "path", "scheme"),
    [
        ("/data/chorus", "/data/chorus", "file"),
        ("data", "data", "file"),
        (" '/data' ", "/data", "file"),
        ("C:\\data", "C:\\data", "file"),
        ("D:/data", "D:/data", "file"),
        ("\\\\server\\share", "\\\\server\\share", "file"),
        ("file:///data/a%20b", "/data/a b", "file"),
        ("file:///D:/data", "D:/data", "file"),
        ("file://server/share", "//server/share", "file"),
        ("az://c/p/", "az://c/p", "az"),
        ("AZURE://c/p", "az://c/p", "az"),
        ("s3://bucket", "s3://bucket", "s3"),
        ("s3://bucket/what?", "s3://bucket/what?", "s3"),
        ("gcs://bucket/p", "gs://bucket/p", "gs"),
        ("sftp://me@host/p", "sftp://host/p", "sftp"),
        ("https://host/archive.tar.gz", "https://host/archive.tar.gz", "https"),
        ("zip://*::https://host/a.zip", "zip://::https://host/a.zip", "zip"),
        ("zip://a/b::/data/x.zip", "zip://a/b::/data/x.zip", "zip"),
        ("zip:///a b/::C:\\data\\x.zip", "zip://a b::C:\\data\\x.zip", "zip"),
        ("tar://::file:///data/a%20b.tar", "tar://::/data/a b.tar", "tar"),
        ("<TAR://::sftp://me@host/x.tar.gz>", "tar://::sftp://host/x.tar.gz", "tar"),
        ("tar://::gcs://bucket/x.tar", "tar://::gs://bucket/x.tar", "tar"),
        ("tar://::https://acct.blob.core.windows.net/c/x.tar?sv=1&sig=S", "tar://::az://c/x.tar", "tar"),
        ("tar://a::https://me:secret@host/x.tar?key=SECRET", "tar://a::https://host/x.tar", "tar"),
        ("s3://bucket/a::b", "s3://bucket/a::b", "s3"),
        ("/data/a::b", "/data/a::b", "file"),
        ("https://acct.blob.core.windows.net/c/p?sv=1&sig=S", "az://c/p", "az"),
        ("https://acct.privatelink.blob.core.windows.net/c", "az://c", "az"),
        ("https://10.1.2.3/acct/c/p?sv=1&sig=S", "az://c/p", "az"),
    ],
)
def test_how_places_are_written(written: str, path: str, scheme: str) -> None:
    location = Location(path=written)
    assert (str(location), location.scheme) == (path, scheme)
    assert location.is_local == (scheme == "file")
    assert Location(path=location.path).path == path


@pytest.mark.parametrize(
    "written",
    [
        "",
        "  ",
        "azz://c",
        "https://10.1.2.3/?sv=1&sig=SECRET",
        "tar://archive.tar",
        "tar://::",
        "zip://::tar://::https://host/SECRET",
        "simplecache::https://me:SECRET@host/a",
        "filecache::zip://::https://me:SECRET@host/a",
    ],
)
def test_what_is_no_place(written: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Location(path=written)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "container", "prefix"),
    [("az://c", "c", ""), ("az://c/a/b", "c", "a/b"), ("sftp://host/a", "host", "a"), ("/data", "", "")],
)
def test_container_and_prefix(path: str, container: str, prefix: str) -> None:
    location = Location(path=path)
    assert (location.container, location.prefix) == (container, prefix)


def test_local_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert Location(path="~/data").local_path == Path("/home/me/data")
    assert Location(path="data").local_path == Path("data")
    with pytest.raises(ValueError, match="not a local path"):
        _ = Location(path="az://c/p").local_path


@pytest.mark.parametrize(
    ("path", "directory", "name"),
    [
        ("az://c/a/b/journal.db", "az://c/a/b", "journal.db"),
        ("az://c/journal.db", "az://c", "journal.db"),
        ("/a/journal.db", "/a", "journal.db"),
        ("journal.db", ".", "journal.db"),
    ],
)
def test_the_cloud_journal_and_its_directory(path: str, directory: str, name: str) -> None:
    cloud = Location(path=path, auth=Auth(mode=AuthMode.LOGIN))
    journal = JournalSettings(local_path=Path("local.db"), cloud=cloud)
    assert (str(journal.cloud_directory), journal.cloud_name) == (directory, name)
    assert journal.cloud_directory.auth == cloud.auth


def test_what_is_pasted_becomes_credentials() -> None:
    location = Location(path="https://acct.blob.core.windows.net/c/p?sv=1&sig=SECRET")
    assert location.auth == Auth(
        mode=AuthMode.SAS_TOKEN,
        azure_account_name="acct",
        azure_account_url="https://acct.blob.core.windows.net",
        azure_sas_token=SecretStr("sv=1&sig=SECRET"),
    )
    assert "SECRET" not in f"{location} {location!r} {location.model_dump()}"
    own = Location(path="sftp://me:OLD@host/p", auth=Auth(password=SecretStr("NEW")))
    assert own.auth.username == "me"
    assert own.auth.password == SecretStr("NEW")


def test_the_credentials_of_an_archive_are_those_of_the_place_that_it_lies_in() -> None:
    location = Location(path="tar://in/side::https://acct.blob.core.windows.net/c/dir/x.tar?sv=1&sr=c&sig=SECRET%2B")
    assert (location.inner, str(location.outer), location.outer.scheme) == ("in/side", "az://c/dir/x.tar", "az")
    assert location.outer.auth == location.auth == Location(path=WHOLE).auth
    assert "SECRET" not in f"{location} {location!r} {location.outer!r}"
    assert not Location(path="/data").is_archive


WHOLE = "https://acct.blob.core.windows.net/c/p?sv=1&sr=c&sig=SECRET%2B"


@pytest.mark.parametrize(
    "pasted",
    [
        f"  {WHOLE}\n",
        f"'{WHOLE}'",
        f'"{WHOLE}",',
        f"“{WHOLE}”",
        f"\u2018{WHOLE}\u2019;",
        f"„{WHOLE}“",
        f"<{WHOLE}>",
        f"`{WHOLE}`",
        f"'<{WHOLE}>', ",
        f"“{WHOLE}",
        WHOLE.replace("&", "\\&").replace("?", "\\?"),
        WHOLE.replace("&", "&amp;"),
        WHOLE.replace("&", "\r\n  &"),
        WHOLE.replace("sig", "\ts ig"),
        WHOLE.replace("windows", "win\n dows"),
        WHOLE.replace("%2B", "%252B"),
    ],
)
@pytest.mark.parametrize("before", ["", "tar://::"])
def test_what_pasting_leaves_around_an_address(pasted: str, before: str) -> None:
    meant = Location(path=before + WHOLE)
    assert Location(path=before + pasted) == meant
    assert meant.auth.azure_sas_token == SecretStr("sv=1&sr=c&sig=SECRET%2B")


@pytest.mark.parametrize(
    "kept", ["/data/a,", "/data/<x>", "s3://b/a b&amp;c", "az://c/a b", "C:\\a\\&b", "gs://b/it's`"]
)
def test_what_may_be_a_name_is_kept(kept: str) -> None:
    assert str(Location(path=kept)) == kept


@given(
    st.text(st.characters(codec="ascii", exclude_characters="&?\\"), max_size=8).map(
        lambda text: "".join(text.split())
    ),
    st.sampled_from(["%s", " <%s> ", "'%s'", "“%s”,", "`%s`;", "\n%s\n"]),
    st.sampled_from(["", "tar://::", "zip://in/side::"]),
)
def test_no_wrapping_gets_a_secret_into_a_path(secret: str, wrapping: str, before: str) -> None:
    whole = f"https://acct.blob.core.windows.net/c/x?sv=1&sig=S{secret}S"
    location = Location(path=before + wrapping % whole)
    assert str(location) == f"{before}az://c/x"
    assert location.auth.azure_sas_token is not None


def test_settings_do_not_change() -> None:
    location = Location(path="/data")
    with pytest.raises(ValidationError):
        location.path = "/other"
    with pytest.raises(ValidationError) as raised:
        Auth.model_validate({"azure_sas_tokn": "SECRET"})
    assert "SECRET" not in str(raised.value)


@given(st.text(max_size=40), st.sampled_from(["az", "https", "sftp", "s3", "file", "gs"]))
def test_no_text_breaks_the_parser(text: str, scheme: str) -> None:
    for written in (text, f"{scheme}://{text}"):
        try:
            parse_address(written)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("AccountName=a;AccountKey=k==", "a", "https://a.blob.core.windows.net"),
        ("DefaultEndpointsProtocol=http;AccountName=a;EndpointSuffix=x.org", "a", "http://a.blob.x.org"),
        (
            "BlobEndpoint=https://a.blob.core.windows.net/;SharedAccessSignature=s",
            "a",
            "https://a.blob.core.windows.net",
        ),
        ("BlobEndpoint=http://127.0.0.1:10000/dev;AccountKey=k", "dev", "http://127.0.0.1:10000/dev"),
        ("UseDevelopmentStorage=true", None, None),
        ("nonsense", None, None),
    ],
)
def test_the_account_of_a_connection_string(text: str, name: str | None, url: str | None) -> None:
    account = account_of_connection_string(text)
    assert (account.name, account.url) == (name, url)
