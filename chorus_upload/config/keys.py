"""The vocabulary in which the keys of `config.toml` are declared, and the keys that every place has."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, StringConstraints

from chorus_upload.config.accounts import split_address
from chorus_upload.config.bandwidth import BandwidthLimit
from chorus_upload.config.settings import NO_PROXY, AuthMode
from chorus_upload.model import JournalingMode


@dataclass(frozen=True, slots=True)
class Value:
    """What may stand behind a key: a type for pydantic, the same in words, and the choices if there are some.

    `parse` reads a text for which that is not enough: its ValueError says what is wrong with this one, in words for
    whoever wrote it.
    """

    annotation: Any
    expects: str
    choices: tuple[str, ...] = ()
    is_secret: bool = False
    parse: Callable[[str], object] | None = None

    @property
    def is_text(self) -> bool:
        """Whether any text will do."""
        return self in (TEXT, SECRET, ADDRESS)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of one section.

    `slot` is the dotted place in `Settings` ("*" is the modality) that the value is for. `default` is Markdown,
    "" if there is none. `current` is False for what only older files have. `variables` are the environment
    variables of the cloud that stand in when the key is absent.
    """

    name: str
    slot: str
    value: Value
    text: str
    example: str
    default: str = ""
    current: bool = True
    variables: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The last part of the slot: the field's name in the model that holds it."""
        return self.slot.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file; `*` in the name stands for a modality."""

    name: str
    text: str
    keys: tuple[Key, ...]

    def find(self, name: str) -> Key | None:
        """The key of that name, if this section has it."""
        return next((key for key in self.keys if key.name == name), None)


def choice(enum: type[StrEnum]) -> Value:
    """A value that is a member of `enum`."""
    members = tuple(str(member) for member in enum)
    return Value(enum, "one of " + ", ".join(f'"{member}"' for member in members), members)


def _split_names(value: object) -> object:
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(name.strip() for name in value if name.strip())
    return value


def _ip_address(text: str) -> str:
    return str(ipaddress.ip_address(text)) if text else text


def _address(text: str) -> str:
    split_address(text)
    return text


def _proxy(secret: SecretStr) -> SecretStr:
    # A password is in it, so nothing of the text may get into the messages of these errors.
    text = secret.get_secret_value().strip()
    if text.lower() in ("", NO_PROXY):
        return SecretStr(text.lower())
    url = urlsplit(text)
    is_more = url.path.strip("/") or url.query or url.fragment
    if url.scheme not in ("http", "https", "socks5h") or not url.hostname or url.port == 0 or is_more:
        raise ValueError("not the address of a proxy")
    return SecretStr(text.rstrip("/"))


_TIERS = ("Hot", "Cool", "Cold", "Archive")
_Text = Annotated[str, StringConstraints(strip_whitespace=True)]

TEXT = Value(_Text, "text in quotes")
SECRET = Value(SecretStr, "text in quotes", is_secret=True)
SWITCH = Value(bool, "true or false")
NAMES = Value(Annotated[tuple[str, ...], BeforeValidator(_split_names)], 'names with commas between, "OMOP,Images"')

TIER = Value(
    Annotated[
        Literal["Hot", "Cool", "Cold", "Archive"],
        BeforeValidator(lambda value: value.strip().capitalize() if isinstance(value, str) else value),
    ],
    "one of " + ", ".join(f'"{tier}"' for tier in _TIERS),
    _TIERS,
)
# In the autumn of 2024 "full" was spelled "snapshot".
MODE = replace(
    choice(JournalingMode),
    annotation=Annotated[
        JournalingMode, BeforeValidator(lambda value: JournalingMode.FULL if value == "snapshot" else value)
    ],
)
BANDWIDTH = Value(_Text, 'a rate, "10 MiB/s", or a timetable of rates', parse=BandwidthLimit.parse)
PROXY = Value(
    Annotated[SecretStr, AfterValidator(_proxy)],
    'an address, "http://proxy.hospital.org:3128" (or https://, socks5h://), or "off"',
    is_secret=True,
)
IP_ADDRESS = Value(Annotated[_Text, AfterValidator(_ip_address)], 'an IPv4 or IPv6 address, "10.20.30.40"')

ADDRESS = Value(Annotated[_Text, AfterValidator(_address)], 'an address, "https://s3.hospital.org:9000"')

CONTAINER_KEYS = {"az": "azure_container", "s3": "s3_container"}


def in_place(keys: Iterable[Key], place: str, *, current: bool = True) -> tuple[Key, ...]:
    """`keys`, whose slots are relative, for the place of that slot."""
    return tuple(replace(key, slot=f"{place}.{key.slot}", current=current and key.current) for key in keys)


CONTAINERS = (
    Key(
        "azure_container",
        "container.az",
        TEXT,
        "The Azure container, for a `path` that does not name it.",
        '"chorus-mgh"',
        default="the first part of `path`",
    ),
    Key(
        "s3_container",
        "container.s3",
        TEXT,
        "The S3 bucket, for a `path` that does not name it.",
        '"chorus-mgh"',
        default="the first part of `path`",
    ),
)

CREDENTIALS = (
    Key(
        "auth_mode",
        "auth.mode",
        choice(AuthMode),
        "How to authenticate. `login` uses the identity of the machine or user, `az login` and `gcloud auth"
        " application-default login` included; `sas` is another spelling of `sas_token`.",
        '"sas_token"',
        default="follows from the credential that is there; `login` without any",
    ),
    Key(
        "azure_account_name",
        "auth.azure_account_name",
        TEXT,
        "The storage account. Its address follows from it, and the other way round.",
        '"chorusmgh"',
        variables=("AZURE_STORAGE_ACCOUNT",),
    ),
    Key(
        "azure_account_url",
        "auth.azure_account_url",
        TEXT,
        "The account's address, where it is not the usual one.",
        '"https://chorusmgh.blob.core.windows.net"',
    ),
    Key(
        "endpoint_ip",
        "auth.endpoint_ip",
        IP_ADDRESS,
        "Where to connect to for the host of the service (Azure, Google), whatever its name resolves to: a private"
        " endpoint, for example, without an entry in the hosts file. The certificate is still checked against the"
        " host's name.",
        '"10.20.30.40"',
        default="what the name resolves to",
    ),
    Key(
        "azure_sas_token",
        "auth.azure_sas_token",
        SECRET,
        "A shared access signature, with or without its leading `?`.",
        '"sv=2024-11-04&se=2027-01-31T00%3A00%3A00Z&sr=c&sp=racwdl&sig=REPLACE"',
        variables=("AZURE_STORAGE_SAS_TOKEN",),
    ),
    Key(
        "azure_connection_string",
        "auth.azure_connection_string",
        SECRET,
        "A connection string of the account.",
        '"DefaultEndpointsProtocol=https;AccountName=chorusmgh;AccountKey=REPLACE"',
        variables=("AZURE_STORAGE_CONNECTION_STRING",),
    ),
    Key(
        "azure_storage_connection_string",
        "auth.azure_connection_string",
        SECRET,
        "Another spelling of `azure_connection_string`.",
        '"DefaultEndpointsProtocol=https;AccountName=chorusmgh;AccountKey=REPLACE"',
        current=False,
    ),
    Key(
        "azure_sas_token_file",
        "auth.azure_sas_token_file",
        TEXT,
        "A text file that holds a SAS token and nothing else, instead of `azure_sas_token`. When the token has expired,"
        " a command that works takes the next one from it.",
        '"~/sas-token.txt"',
    ),
    Key(
        "azure_account_key",
        "auth.azure_account_key",
        SECRET,
        "A key of the account. It opens the whole account: prefer a SAS token.",
        '"REPLACE"',
        variables=("AZURE_STORAGE_KEY",),
    ),
    Key(
        "aws_access_key_id",
        "auth.aws_access_key_id",
        TEXT,
        "The first half of an AWS key pair.",
        '"AKIAIOSFODNN7EXAMPLE"',
        variables=("AWS_ACCESS_KEY_ID",),
    ),
    Key(
        "aws_secret_access_key",
        "auth.aws_secret_access_key",
        SECRET,
        "The second half of an AWS key pair.",
        '"REPLACE"',
        variables=("AWS_SECRET_ACCESS_KEY",),
    ),
    Key(
        "aws_session_token",
        "auth.aws_session_token",
        SECRET,
        "What belongs to a temporary AWS key pair.",
        '"REPLACE"',
        variables=("AWS_SESSION_TOKEN",),
    ),
    Key(
        "aws_profile",
        "auth.aws_profile",
        TEXT,
        "A profile in `~/.aws`, instead of a key pair.",
        '"hospital"',
        variables=("AWS_PROFILE",),
    ),
    Key(
        "aws_endpoint_url",
        "auth.aws_endpoint_url",
        ADDRESS,
        "The address of an S3-compatible service that is not Amazon's. Its responses have to carry `x-amz-request-id`;"
        " `config check --online` tries that.",
        '"https://s3.hospital.org:9000"',
        variables=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    ),
    Key(
        "endpoint_url",
        "auth.aws_endpoint_url",
        ADDRESS,
        "Another spelling of `aws_endpoint_url`.",
        '"https://s3.hospital.org:9000"',
        current=False,
    ),
    Key(
        "aws_requester_pays",
        "auth.aws_requester_pays",
        SWITCH,
        "Pay for what is transferred, as some S3 buckets ask of everybody but their owner.",
        "true",
        default="`false`",
    ),
    Key(
        "google_application_credentials",
        "auth.google_application_credentials",
        TEXT,
        "A Google credentials file (JSON): the key of a service account, an application default login, or a workload"
        " identity.",
        '"~/chorus-service-account.json"',
        variables=("GOOGLE_APPLICATION_CREDENTIALS",),
    ),
    Key(
        "google_token_file",
        "auth.google_token_file",
        TEXT,
        "A text file that holds a Google access token and nothing else, for whoever is handed one. It is read again"
        " whenever it changes, also while a command works.",
        '"~/google-token.txt"',
    ),
    Key(
        "google_user_project",
        "auth.google_user_project",
        TEXT,
        "The Google project that pays for what is asked, for buckets where that is not their owner.",
        '"our-project"',
    ),
    Key(
        "google_endpoint_url",
        "auth.google_endpoint_url",
        ADDRESS,
        "The address of Google Cloud Storage, where it is not the usual one: a private endpoint, or an emulator.",
        '"https://storage-xyz.p.googleapis.com"',
        default="`https://storage.googleapis.com`",
        variables=("STORAGE_EMULATOR_HOST",),
    ),
)

IDLE = ".idle."
"""In the slots of keys that older files have and that never did anything; loading warns of each."""


def _idle(name: str, value: Value, example: str, *, text: str) -> Key:
    return Key(name, f"configuration{IDLE}{name}", value, text, example, current=False)


IDLE_PROXY = _idle(
    "azure_storage_proxy_url",
    TEXT,
    '"https://upload.example.org"',
    text="Without effect: where the account has a host of its own, write it as `azure_account_url`, beside"
    " `azure_account_name`.",
)
"""It was written in `[configuration]`, and beside credentials."""

IDLE_KEYS = (
    _idle("profile", SWITCH, "false", text="Without effect: the program measures nothing of itself."),
    _idle(
        "patient_first",
        SWITCH,
        "true",
        text="Without effect: the order of the directories in the central store is `patient_first` in"
        " `[central_path]`, which is true when it is left out.",
    ),
    _idle(
        "auth_mode",
        choice(AuthMode),
        '"login"',
        text="Without effect: write it into the `.auth` section of each path.",
    ),
    IDLE_PROXY,
)
"""Those of `[configuration]`."""

IDLE_TEXTS = {key.name: key.text for key in IDLE_KEYS}


def idle_proxy(place: str) -> Key:
    """`IDLE_PROXY` beside the credentials of a place."""
    return replace(IDLE_PROXY, slot=f"{place}{IDLE}{IDLE_PROXY.name}")
