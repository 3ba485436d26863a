"""One service has one name, however it is reached, and two services never have the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_upload.config.loading import load
from chorus_upload.config.services import endpoint_name, service_of
from chorus_upload.config.settings import Auth, Location

_NAMED = {"azure_account_name": "chorusmgh"}
_OWN_HOST = "https://upload.chorus4ai.org"


@pytest.mark.parametrize(
    ("scheme", "auth", "service"),
    [
        ("az", _NAMED, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": "https://chorusmgh.blob.core.windows.net"}, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": "https://chorusmgh.blob.core.windows.net:443/"}, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": "https://chorusmgh.blob.core.windows.net."}, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": "https://chorusmgh-secondary.blob.core.windows.net"}, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": "https://chorusmgh.privatelink.blob.core.windows.net"}, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": _OWN_HOST}, "chorusmgh"),
        ("az", _NAMED | {"azure_account_url": _OWN_HOST, "endpoint_ip": "10.1.2.3"}, "chorusmgh"),
        ("az", {"azure_account_url": _OWN_HOST}, "upload.chorus4ai.org:443"),
        ("az", {"azure_account_url": "https://Upload.Chorus4ai.org/"}, "upload.chorus4ai.org:443"),
        ("az", {"azure_account_url": "https://upload.hospital.org"}, "upload.hospital.org:443"),
        (
            "az",
            {"azure_account_url": "https://chorusmgh.blob.core.chinacloudapi.cn"},
            "chorusmgh.blob.core.chinacloudapi.cn",
        ),
        (
            "az",
            _NAMED | {"azure_account_url": "https://chorusmgh.blob.core.usgovcloudapi.net"},
            "chorusmgh.blob.core.usgovcloudapi.net",
        ),
        (
            "az",
            {"azure_account_url": "http://127.0.0.1:10000/devstoreaccount1"},
            "127.0.0.1:10000/devstoreaccount1",
        ),
        (
            "az",
            {
                "azure_account_name": "devstoreaccount1",
                "azure_account_url": "http://localhost:10000/devstoreaccount1/",
            },
            "127.0.0.1:10000/devstoreaccount1",
        ),
        ("s3", {}, ""),
        ("s3", {"aws_endpoint_url": "https://s3.us-east-1.amazonaws.com"}, ""),
        ("s3", {"aws_endpoint_url": "https://s3.dualstack.eu-west-1.amazonaws.com"}, ""),
        ("s3", {"aws_endpoint_url": "https://bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com"}, ""),
        ("s3", {"aws_endpoint_url": "https://s3.cn-north-1.amazonaws.com.cn"}, "aws-cn"),
        ("s3", {"aws_endpoint_url": "https://s3-fips.us-gov-west-1.amazonaws.com"}, "aws-us-gov"),
        (
            "s3",
            {"aws_endpoint_url": "http://ec2-3-4.compute-1.amazonaws.com:9000"},
            "ec2-3-4.compute-1.amazonaws.com:9000",
        ),
        ("s3", {"aws_endpoint_url": "https://S3.Hospital.org/"}, "s3.hospital.org:443"),
        ("s3", {"aws_endpoint_url": "http://s3.hospital.org:443"}, "s3.hospital.org:443"),
        ("s3", {"aws_endpoint_url": "https://s3.hospital.org:9000"}, "s3.hospital.org:9000"),
        ("gs", {}, ""),
        ("gs", {"google_endpoint_url": "https://storage.googleapis.com"}, ""),
        ("gs", {"google_endpoint_url": "https://storage-xyz.p.googleapis.com"}, ""),
        ("gs", {"google_endpoint_url": "localhost:4443"}, "127.0.0.1:4443"),
    ],
)
def test_the_name_of_a_service(scheme: str, auth: dict[str, str], service: str, tmp_path: Path) -> None:
    location = Location(path=f"{scheme}://data/site", auth=Auth.model_validate(auth))

    assert service_of(location, {"AWS_CONFIG_FILE": str(tmp_path / "absent")}) == service


_PROFILES = """
[default]
region = cn-north-1

[profile hospital]
region = us-east-1
services = ours

[profile plain]
endpoint_url = https://minio.hospital.org

[services ours]
s3 =
    addressing_style = path
    endpoint_url = https://ceph.hospital.org:7480
"""


@pytest.mark.parametrize(
    ("profile", "environ", "service"),
    [
        (None, {}, "aws-cn"),
        (None, {"AWS_DEFAULT_REGION": "us-west-2"}, ""),
        (None, {"AWS_PROFILE": "plain"}, "minio.hospital.org:443"),
        ("hospital", {}, "ceph.hospital.org:7480"),
        ("hospital", {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, ""),
        ("absent", {}, ""),
    ],
)
def test_what_a_profile_says_of_amazon(
    profile: str | None, environ: dict[str, str], service: str, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(_PROFILES)
    location = Location(path="s3://data/site", auth=Auth(aws_profile=profile))

    assert service_of(location, {"AWS_CONFIG_FILE": str(file), **environ}) == service


def test_an_address_in_one_spelling() -> None:
    spellings = ("https://HOST.org", "https://host.org:443/", "host.org.", "http://host.org:443")

    assert {endpoint_name(each) for each in spellings} == {"host.org:443"}
    assert endpoint_name("https://[::1]:9000/s3/") == "127.0.0.1:9000/s3"
    assert endpoint_name("https://[fd00::1]:9000") == "[fd00::1]:9000"


def named_in(tmp_path: Path, auth: str, path: str = "az://data/site") -> str:
    """The name of the central store's service in a configuration with these lines."""
    file = tmp_path / "config.toml"
    file.touch(mode=0o600)
    file.write_text(
        f"""
[journal]
journaling_mode = "full"
[journal.source]
path = "{tmp_path / "journal.db"}"
[central_path]
path = "{path}"
[central_path.auth]
{auth}
[site_path.default]
path = "{tmp_path}"
"""
    )
    return service_of(load(file, environ={}).central.location, {})


def test_a_host_of_ones_own_does_not_say_which_account_is_behind_it(tmp_path: Path) -> None:
    login = 'auth_mode = "login"\nazure_account_url = "https://upload'
    assert named_in(tmp_path, f'{login}.chorus4ai.org"') == "upload.chorus4ai.org:443"
    assert named_in(tmp_path, f'{login}.hospital.org"') == "upload.hospital.org:443"
    assert named_in(tmp_path, f'{login}.chorus4ai.org"\nazure_account_name = "chorusmgh"') == "chorusmgh"
    assert named_in(tmp_path, 'auth_mode = "login"\nazure_account_name = "chorusmgh"') == "chorusmgh"


def test_neither_does_an_address_that_was_pasted_whole(tmp_path: Path) -> None:
    pasted = "https://upload.chorus4ai.org/data/site?sv=2024&sig=REPLACE"
    assert named_in(tmp_path, "", pasted) == "upload.chorus4ai.org:443"
    assert named_in(tmp_path, 'azure_account_name = "chorusmgh"', pasted) == "chorusmgh"


def test_a_connection_string_says_it(tmp_path: Path) -> None:
    text = "BlobEndpoint=https://upload.chorus4ai.org;SharedAccessSignature=sv=1&sig=REPLACE"
    assert named_in(tmp_path, f'azure_connection_string = "{text}"') == "upload.chorus4ai.org:443"
    text = f"AccountName=chorusmgh;{text}"
    assert named_in(tmp_path, f'azure_connection_string = "{text}"') == "chorusmgh"
