"""Each place gets its own credentials: from the file, the environment or a pasted address, and no other's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from chorus_upload.config.settings import Auth, AuthMode, Settings
from chorus_upload.config.showing import masked
from chorus_upload.errors import ConfigError
from tests.config.conftest import MINIMAL, Load

AZURE = MINIMAL.replace('path = "/central"', 'path = "az://c/data"')


def _central(auth: str, *, path: str = "az://c/data") -> str:
    return f"{MINIMAL.replace('/central', path)}\n[central_path.auth]\n{auth}\n"


def _auth(settings: Settings) -> Auth:
    return settings.central.location.auth


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""


# --- The mode follows from what is there


@pytest.mark.parametrize(
    ("auth", "mode"),
    [
        ('azure_account_name = "acct"', AuthMode.LOGIN),
        ('azure_account_name = "acct"\nazure_sas_token = "sig=S"', AuthMode.SAS_TOKEN),
        ('azure_account_name = "acct"\nazure_sas_token = ""', AuthMode.LOGIN),
        ('azure_account_name = "acct"\nazure_account_key = "S"', AuthMode.ACCOUNT_KEY),
        ('azure_connection_string = "AccountName=acct;AccountKey=S"', AuthMode.CONNECTION_STRING),
        ('azure_storage_connection_string = "AccountName=acct;AccountKey=S"', AuthMode.CONNECTION_STRING),
        ('azure_account_name = "acct"\nauth_mode = "anonymous"', AuthMode.ANONYMOUS),
    ],
)
def test_azure(load_text: Load, auth: str, mode: AuthMode) -> None:
    found = _auth(load_text(_central(auth)))
    assert found.mode is mode
    assert found.azure_account_name == "acct"
    assert found.azure_account_url == "https://acct.blob.core.windows.net"


@pytest.mark.parametrize(
    ("path", "auth", "mode"),
    [
        ("s3://b/x", "", AuthMode.LOGIN),
        ("s3://b/x", 'aws_profile = "p"', AuthMode.PROFILE),
        ("s3://b/x", 'aws_access_key_id = "a"\naws_secret_access_key = "S"', AuthMode.ACCESS_KEY),
        ("gs://b/x", "", AuthMode.LOGIN),
        ("gcs://b/x", 'google_application_credentials = "~/key.json"', AuthMode.APPLICATION_CREDENTIALS),
        ("gs://b/x", 'google_token_file = "~/token.txt"', AuthMode.TOKEN_FILE),
        ("gs://b/x", 'google_token_file = "t"\ngoogle_application_credentials = "k"', AuthMode.TOKEN_FILE),
        ("gs://b/x", 'auth_mode = "anonymous"\ngoogle_user_project = "p"', AuthMode.ANONYMOUS),
        ("sftp://host/x", "", None),
        ("/local", 'auth_mode = "login"', None),
    ],
)
def test_other_services(load_text: Load, path: str, auth: str, mode: AuthMode | None) -> None:
    assert _auth(load_text(_central(auth, path=path))).mode is mode


@pytest.mark.parametrize(
    ("path", "auth", "said"),
    [
        ("az://c/x", 'azure_account_name="a"\nauth_mode="sas"', '"sas_token" needs azure_sas_token'),
        ("az://c/x", 'azure_account_name="a"\nauth_mode="account_key"', "AZURE_STORAGE_KEY"),
        ("az://c/x", "", "azure_account_name: is missing: which storage account is it?"),
        ("az://c/x", 'azure_account_name="a"\nauth_mode="profile"', '"profile" does not fit this path'),
        ("az://c/x", 'azure_account_name="a"\nauth_mode="sas-token"', 'did you mean "sas_token"?'),
        ("s3://c/x", 'auth_mode="sas_token"', '"sas_token" does not fit this path; possible are "login", "access_key"'),
        ("s3://c/x", 'aws_access_key_id="a"', "aws_secret_access_key: is missing"),
        ("az://c/x", 'azure_account_name="a"\nazure_account_url="https://b.blob.core.windows.net"', "address of b"),
        ("az://c/x", 'azure_account_url="https://b.blob.core.windows.net/c"', "the container belongs in path"),
        ("az://c/x", 'azure_account_url="https://b.blob.core.windows.net?sv=SECRET"', "belongs in azure_sas_token"),
        ("az://c/x", 'azure_account_name="a"\nazure_connection_string="AccountName=b"', "is for the account b"),
        ("az://c/x", 'azure_account_url="http://127.0.0.1:10000"', "must be followed by the account's name"),
        ("az://c/x", 'azure_connection_string="a"\nazure_storage_connection_string="b"', "contradicts"),
        ("az://c/x", 'azure_account_name="a"\nazure_container="d"', "keep one of them"),
        ("az:///x", 'azure_account_name="a"', "names no container"),
        (
            "https://a.blob.core.windows.net/c?sv=1&sig=SECRET",
            'azure_account_name="b"',
            "is the address of a, but azure_account_name is b",
        ),
        ("https://a.blob.core.windows.net/c?sv=1&sig=SECRET", 'azure_sas_token="sig=SECRET2"', "another token than"),
    ],
)
def test_credentials_that_do_not_fit(load_text: Load, path: str, auth: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(_central(auth, path=path))
    assert said in raised.value.message
    assert "SECRET" not in raised.value.message
    assert len(raised.value.message.splitlines()) == 1


def test_of_several_credentials_the_narrowest_is_used_and_the_others_are_left_out(load_text: Load) -> None:
    settings = load_text(
        _central('azure_account_name = "acct"\nazure_sas_token = "sig=S"\nazure_account_key = "K"\naws_profile = "p"')
    )
    assert _auth(settings).mode is AuthMode.SAS_TOKEN
    assert _auth(settings).azure_account_key is None
    assert "azure_account_key, aws_profile: not used" in settings.warnings[0]


def test_login_is_login_even_if_a_token_was_left_in_the_file(load_text: Load) -> None:
    settings = load_text(_central('azure_account_name = "acct"\nazure_sas_token = "sig=S"\nauth_mode = "login"'))
    assert _auth(settings) == Auth(
        mode=AuthMode.LOGIN, azure_account_name="acct", azure_account_url="https://acct.blob.core.windows.net"
    )
    assert "not used, because the mode is login" in settings.warnings[0]


# --- What is pasted


def test_a_sas_url_as_it_was_received(load_text: Load) -> None:
    settings = load_text(_central("", path=" 'https://acct.blob.core.windows.net/c/my%20data/?sv=1&sig=S%2B' "))
    location = settings.central.location
    assert str(location) == "az://c/my data"
    assert (location.container, location.prefix) == ("c", "my data")
    assert location.auth.mode is AuthMode.SAS_TOKEN
    assert location.auth.azure_account_name == "acct"
    assert _secret(location.auth.azure_sas_token) == "sv=1&sig=S%2B"


@pytest.mark.parametrize(
    "token", ["sv=1&sig=S", "?sv=1&sig=S", ' "sv=1&sig=S" ', "https://acct.blob.core.windows.net/c?sv=1&sig=S"]
)
def test_a_token_as_it_was_pasted(load_text: Load, token: str) -> None:
    auth = _auth(load_text(_central(f"azure_account_name = 'acct'\nazure_sas_token = '{token}'")))
    assert _secret(auth.azure_sas_token) == "sv=1&sig=S"


def test_the_emulator(load_text: Load) -> None:
    auth = _auth(
        load_text(_central('azure_account_url = "http://127.0.0.1:10000/devstoreaccount1"\nazure_account_key = "KEY"'))
    )
    assert auth.azure_account_name == "devstoreaccount1"
    assert auth.azure_account_url == "http://127.0.0.1:10000/devstoreaccount1"
    settings = load_text(_central("", path="http://127.0.0.1:10000/devstoreaccount1/c/x?sv=1&sig=S"))
    assert str(settings.central.location) == "az://c/x"
    assert _auth(settings).azure_account_url == "http://127.0.0.1:10000/devstoreaccount1"
    assert settings.warnings == ()


def test_a_host_of_ones_own_in_front_of_the_account(load_text: Load) -> None:
    auth = _auth(load_text(_central('azure_account_name = "acct"\nazure_account_url = "https://blobs.hospital.org"')))
    assert (auth.azure_account_name, auth.azure_account_url) == ("acct", "https://blobs.hospital.org")


def test_an_account_address_without_https_in_front(load_text: Load) -> None:
    auth = _auth(load_text(_central('azure_account_url = "acct.blob.core.windows.net"')))
    assert (auth.azure_account_name, auth.azure_account_url) == ("acct", "https://acct.blob.core.windows.net")


def test_http_to_another_machine_is_warned_of(load_text: Load) -> None:
    settings = load_text(_central('azure_account_url = "http://acct.blob.core.windows.net"'))
    assert "http:// sends data and credentials unprotected" in settings.warnings[0]


@pytest.mark.parametrize(
    ("path", "keys", "expected"),
    [
        ('path = "data/mgh"', 'azure_container = "c"', "az://c/data/mgh"),
        ('path = "az:///data"', 'azure_container = "c"', "az://c/data"),
        ('path = "az://"', 'azure_container = "c"', "az://c"),
        ("", 'azure_container = "c"', "az://c"),
        ('path = "az://c/data"', 'azure_container = "c"', "az://c/data"),
        ('path = "az://c/data"', 'azure_container = ""', "az://c/data"),
        ('path = "data"', 's3_container = "b"', "s3://b/data"),
        ('path = "/data"', 'azure_container = "c"', "/data"),
        ('path = "https://acct.blob.core.windows.net/?sv=1&sig=S"', 'azure_container = "c"', "az://c"),
    ],
)
def test_the_container_in_a_key_of_its_own(load_text: Load, path: str, keys: str, expected: str) -> None:
    text = MINIMAL.replace('path = "/central"', f'{path}\n{keys}\nazure_account_name = "acct"')
    assert str(load_text(text).central.location) == expected


# --- Another way to the account


@pytest.mark.parametrize(
    ("written", "address"),
    [("10.20.30.40", "10.20.30.40"), (" 10.20.30.40 ", "10.20.30.40"), ("FD00::0:1", "fd00::1"), ("", None)],
)
def test_the_host_of_the_account_is_elsewhere(load_text: Load, written: str, address: str | None) -> None:
    settings = load_text(_central(f'azure_account_name = "acct"\nendpoint_ip = "{written}"'))
    assert _auth(settings).endpoint_ip == address
    assert _auth(settings).azure_account_url == "https://acct.blob.core.windows.net"
    assert settings.warnings == ()


@pytest.mark.parametrize(
    "path", ["https://acct.blob.core.windows.net/c/data?sv=1&sig=S", "https://acct.blob.core.windows.net/c/data"]
)
def test_the_address_goes_with_a_pasted_url_too(load_text: Load, path: str) -> None:
    auth = _auth(load_text(_central('endpoint_ip = "10.20.30.40"', path=path)))
    assert (auth.azure_account_name, auth.endpoint_ip) == ("acct", "10.20.30.40")


def test_the_address_is_no_credential(load_text: Load) -> None:
    text = _central('azure_account_name = "acct"\nazure_account_key = "FILE"\nendpoint_ip = "10.20.30.40"')
    auth = _auth(load_text(text, {"CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN": "sig=ENV"}))
    assert (auth.mode, auth.endpoint_ip) == (AuthMode.SAS_TOKEN, "10.20.30.40")
    settings = load_text(text, {"CHORUS_UPLOAD_CENTRAL_PATH_ENDPOINT_IP": "10.20.30.50"})
    assert (_auth(settings).mode, _auth(settings).endpoint_ip) == (AuthMode.ACCOUNT_KEY, "10.20.30.50")
    assert settings.origins["central.location.auth.endpoint_ip"].endswith("CHORUS_UPLOAD_CENTRAL_PATH_ENDPOINT_IP")
    with pytest.raises(ConfigError, match="CHORUS_UPLOAD_CENTRAL_PATH_ENDPOINT_IP: must be an IPv4 or IPv6 address"):
        load_text(text, {"CHORUS_UPLOAD_CENTRAL_PATH_ENDPOINT_IP": "somewhere"})


def test_the_address_goes_with_a_connection_string_and_to_no_other_place(load_text: Load) -> None:
    keys = 'azure_connection_string = "AccountName=acct;AccountKey=S"\nendpoint_ip = "10.20.30.40"\n'
    text = f"[site_path.default.auth]\n{keys}[site_path.Images]\npath = 'az://other/x'\nazure_account_name = 'other'\n"
    settings = load_text(text + MINIMAL.replace("/data", "az://c/data"))
    assert settings.sites["OMOP"].location.auth.endpoint_ip == "10.20.30.40"
    assert settings.origins["sites.OMOP.location.auth.azure_account_url"].endswith("azure_connection_string")
    assert settings.sites["Images"].location.auth.endpoint_ip is None


def test_an_address_that_leads_nowhere_is_mentioned(load_text: Load) -> None:
    for path in ("/central", "s3://b/x"):
        settings = load_text(_central('endpoint_ip = "10.20.30.40"', path=path))
        assert "endpoint_ip: not used" in settings.warnings[0]


# --- Inheritance


INHERITING = """
[journal]
path = "/journal/journal.db"
[central_path]
path = "/central"
[site_path.default]
path = "az://source/data"
[site_path.default.auth]
azure_account_name = "hospital"
azure_sas_token = "sig=DEFAULT"
"""


def test_a_modality_without_a_path_takes_the_default_and_its_credentials(load_text: Load) -> None:
    site = load_text(INHERITING).sites["Images"]
    assert str(site.location) == "az://source/data"
    assert _secret(site.location.auth.azure_sas_token) == "sig=DEFAULT"


def test_credentials_never_go_to_another_path(load_text: Load) -> None:
    settings = load_text(INHERITING + '[site_path.Images]\npath = "az://elsewhere/x"\nazure_account_name = "other"')
    assert settings.sites["Images"].location.auth == Auth(
        mode=AuthMode.LOGIN, azure_account_name="other", azure_account_url="https://other.blob.core.windows.net"
    )


def test_not_even_the_account_goes_to_another_path(load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"\[site_path.Images\] azure_account_name: is missing"):
        load_text(INHERITING + '[site_path.Images]\npath = "az://elsewhere/x"')


def test_a_credential_of_ones_own_for_the_default_path(load_text: Load) -> None:
    auth = load_text(INHERITING + '[site_path.Images]\nazure_account_key = "OWN"').sites["Images"].location.auth
    assert (auth.mode, auth.azure_sas_token, _secret(auth.azure_account_key)) == (AuthMode.ACCOUNT_KEY, None, "OWN")
    assert auth.azure_account_name == "hospital"


def test_a_mistake_in_the_default_is_told_once(load_text: Load) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(INHERITING.replace('azure_account_name = "hospital"', ""))
    assert raised.value.message.splitlines() == [
        "config.toml: [site_path.default] azure_account_name: is missing: which storage account is it?"
    ]


# --- The environment


def test_what_the_environment_says_of_a_place_wins_over_the_file(load_text: Load) -> None:
    text = _central('azure_account_name = "acct"\nauth_mode = "account_key"\nazure_account_key = "FILE"')
    auth = _auth(load_text(text, {"CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN": "?sig=ENV"}))
    assert (auth.mode, _secret(auth.azure_sas_token), auth.azure_account_key) == (AuthMode.SAS_TOKEN, "sig=ENV", None)
    assert auth.azure_account_name == "acct"


def test_it_wins_over_a_pasted_token_too(load_text: Load) -> None:
    text = _central("", path="https://acct.blob.core.windows.net/c?sv=1&sig=OLD")
    auth = _auth(load_text(text, {"CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN": "sig=NEW"}))
    assert _secret(auth.azure_sas_token) == "sig=NEW"


def test_each_place_has_its_own_variables(load_text: Load) -> None:
    text = f"""
    [journal.source]
    path = "az://c/journal.db"
    azure_account_name = "acct"
    [site_path.Images]
    path = "az://c/images"
    azure_account_name = "acct"
    {MINIMAL.replace('path = "/journal/journal.db"', "")}
    """
    settings = load_text(
        "\n".join(line.strip() for line in text.splitlines()),
        {
            "CHORUS_UPLOAD_JOURNAL_AZURE_SAS_TOKEN": "sig=J",
            "CHORUS_UPLOAD_SITE_PATH_IMAGES_AZURE_SAS_TOKEN": "sig=I",
        },
    )
    assert _secret(settings.journal.cloud.auth.azure_sas_token) == "sig=J"
    assert _secret(settings.sites["Images"].location.auth.azure_sas_token) == "sig=I"
    assert settings.warnings == ()


def test_a_misspelled_variable_is_mentioned(load_text: Load) -> None:
    settings = load_text(MINIMAL, {"CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKN": "SECRET"})
    assert "CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKN: overrides nothing" in settings.warnings[0]
    assert "SECRET" not in settings.warnings[0]
    with pytest.raises(ConfigError, match="environment variable CHORUS_UPLOAD_JOURNAL_AUTH_MODE: must be one of"):
        load_text(MINIMAL, {"CHORUS_UPLOAD_JOURNAL_AUTH_MODE": "sass"})


AMBIENT = {
    "AZURE_STORAGE_ACCOUNT": "acct",
    "AZURE_STORAGE_SAS_TOKEN": "sig=AMBIENT",
    "AWS_ACCESS_KEY_ID": "AKIA",
    "AWS_SECRET_ACCESS_KEY": "AMBIENT",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
}


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("az://c/x", AuthMode.SAS_TOKEN),
        ("s3://c/x", AuthMode.ACCESS_KEY),
        ("gs://c/x", AuthMode.APPLICATION_CREDENTIALS),
        ("/x", None),
        ("sftp://host/x", None),
    ],
)
def test_the_usual_variables_serve_a_place_of_their_cloud(load_text: Load, path: str, mode: AuthMode | None) -> None:
    auth = _auth(load_text(_central("", path=path), AMBIENT))
    assert auth.mode is mode
    assert (auth.azure_account_name == "acct") == path.startswith("az")
    if mode is None:
        assert auth == Auth()


@pytest.mark.parametrize(
    ("auth", "mode"),
    [
        ('azure_account_name = "acct"', AuthMode.SAS_TOKEN),
        ('azure_account_name = "another"', AuthMode.LOGIN),
        ('azure_account_key = "OWN"', AuthMode.ACCOUNT_KEY),
        ('auth_mode = "login"', AuthMode.LOGIN),
        ('auth_mode = "sas_token"', AuthMode.SAS_TOKEN),
    ],
)
def test_the_usual_variables_step_back_for_another_account_or_credential(
    load_text: Load, auth: str, mode: AuthMode
) -> None:
    found = _auth(load_text(_central(auth), AMBIENT))
    assert found.mode is mode
    assert (found.azure_sas_token is not None) == (mode is AuthMode.SAS_TOKEN)


def test_a_usual_connection_string_serves_its_own_account_only(load_text: Load) -> None:
    ambient = {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=acct;AccountKey=AMBIENT;EndpointSuffix=core.example"}
    auth = _auth(load_text(_central(""), ambient))
    assert (auth.mode, auth.azure_account_name) == (AuthMode.CONNECTION_STRING, "acct")
    assert auth.azure_account_url == "https://acct.blob.core.example"
    assert _auth(load_text(_central('azure_account_name = "acct"'), ambient)).mode is AuthMode.CONNECTION_STRING
    assert _auth(load_text(_central('azure_account_name = "other"'), ambient)).mode is AuthMode.LOGIN


def test_a_usual_variable_does_not_complete_a_key_pair_of_the_file(load_text: Load) -> None:
    with pytest.raises(ConfigError, match="go together"):
        load_text(_central('aws_access_key_id = "OWN"', path="s3://b/x"), AMBIENT)


def test_a_place_at_google(load_text: Load) -> None:
    text = 'google_token_file = "t"\ngoogle_user_project = "payer"\nendpoint_ip = "10.0.0.1"'
    auth = _auth(load_text(_central(text, path="gs://b/x"), {"STORAGE_EMULATOR_HOST": "localhost:4443"}))
    assert auth == Auth(
        mode=AuthMode.TOKEN_FILE,
        google_token_file="t",
        google_user_project="payer",
        google_endpoint_url="localhost:4443",
        endpoint_ip="10.0.0.1",
    )
    own = _auth(
        load_text(
            _central('google_endpoint_url = "https://own.example"', path="gs://b/x"),
            {"STORAGE_EMULATOR_HOST": "localhost:4443", **AMBIENT},
        )
    )
    assert (own.mode, own.google_endpoint_url) == (AuthMode.APPLICATION_CREDENTIALS, "https://own.example")


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
@pytest.mark.parametrize("key", ["google_token_file", "google_application_credentials"])
def test_a_file_with_a_credential_should_be_its_owners_alone(load_text: Load, tmp_path: Path, key: str) -> None:
    file = tmp_path / "secret"
    file.write_text("secret")
    file.chmod(0o640)
    text = _central(f'{key} = "{file}"', path="gs://b/x")
    assert any("others can read that file" in warning for warning in load_text(text).warnings)
    file.chmod(0o600)
    assert load_text(text).warnings == ()
    file.unlink()
    assert load_text(text).warnings == ()


# --- Nothing shows a secret


def test_no_secret_is_shown(load_text: Load) -> None:
    text = """
    [journal.source]
    path = "https://acct.blob.core.windows.net/c/journal.db?sv=1&sig=SECRET1"
    [central_path]
    path = "az://c/data"
    azure_connection_string = "AccountName=acct;AccountKey=SECRET2"
    [site_path.default]
    path = "s3://b/x"
    aws_access_key_id = "AKIA"
    aws_secret_access_key = "SECRET3"
    aws_session_token = "SECRET4"
    [site_path.Images]
    path = "sftp://me:SECRET5@host/x"
    [site_path.OMOP]
    path = "https://host/archive.zip?token=SECRET6"
    """
    settings = load_text("\n".join(line.strip() for line in text.splitlines()))
    assert _secret(settings.journal.cloud.auth.azure_sas_token) == "sv=1&sig=SECRET1"
    images, omop = settings.sites["Images"].location, settings.sites["OMOP"].location
    assert (str(images), images.auth.username, _secret(images.auth.password)) == ("sftp://host/x", "me", "SECRET5")
    assert (str(omop), _secret(omop.auth.url_query)) == ("https://host/archive.zip", "token=SECRET6")
    shown = masked(settings)
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        json.dumps(shown),
        str(settings.journal.cloud),
    ):
        assert "SECRET" not in text
    assert json.dumps(shown).count("***") == 8


@pytest.mark.parametrize(
    ("path", "warned"),
    [
        ("http://me:SECRET@host/data/", True),
        ("tar://::http://host/data.tar?key=SECRET", True),
        ("tar://::https://me:SECRET@host/data.tar", False),
        ("http://host/data/", False),
    ],
)
def test_a_log_in_that_goes_unprotected(load_text: Load, path: str, *, warned: bool) -> None:
    text = MINIMAL.replace('path = "/data"', f'path = "{path}"')
    settings = load_text(text)
    assert any("unprotected" in warning for warning in settings.warnings) == warned
    assert "SECRET" not in str(settings)
