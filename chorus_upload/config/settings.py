"""The settings, merged and checked: immutable, and safe to print (a secret shows as asterisks)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from chorus_upload.config.addresses import ARCHIVES, parse_address, scheme_of
from chorus_upload.config.bandwidth import BandwidthLimit
from chorus_upload.config.local_paths import expanded
from chorus_upload.layout import Pattern
from chorus_upload.model import FingerprintTime, JournalingMode

ThreadCount = Annotated[int, Field(ge=1, le=512)]
PageSize = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
BackupCount = Annotated[int, Field(ge=0, le=1_000)]
Seconds = Annotated[float, Field(ge=0, le=604_800)]

NO_PROXY = "off"
"""What `Settings.proxy` holds when there shall be none, whatever the environment says."""


class AuthMode(StrEnum):
    """How a program shows a service who it is."""

    LOGIN = "login"
    """The identity of this machine or user: the Azure identity chain, an AWS role, Google's default credentials."""
    SAS_TOKEN = "sas_token"  # noqa: S105 - the name of a mode
    SAS = "sas"
    """As `sas_token`; loading turns it into that."""
    ACCOUNT_KEY = "account_key"
    CONNECTION_STRING = "connection_string"
    ACCESS_KEY = "access_key"
    """An AWS key pair."""
    PROFILE = "profile"
    """A named AWS profile."""
    APPLICATION_CREDENTIALS = "application_credentials"
    """A Google credentials file."""
    TOKEN_FILE = "token_file"  # noqa: S105 - the name of a mode
    """A text file with an access token of Google's."""
    ANONYMOUS = "anonymous"


class UploadMethod(StrEnum):
    """Who sends the files: this program, or a generated script that calls another one."""

    BUILTIN = "builtin"
    AZCLI = "azcli"
    AZCOPY = "azcopy"


class Overwrite(StrEnum):
    """What happens to a central key that holds other content than the file that belongs there."""

    NEVER = "never"
    """It is reported, and the file stays pending."""
    REPLACE = "replace"
    """It is replaced, and that is reported."""


class _Frozen(BaseModel):
    # Inputs are hidden in errors because an input may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Auth(_Frozen):
    """The credentials of one place. After loading it holds only those that `mode` uses.

    `mode` is None where nothing was given: a local path, or a service that needs none.
    """

    mode: AuthMode | None = None
    azure_account_name: str | None = None
    azure_account_url: str | None = None
    azure_sas_token: SecretStr | None = None
    azure_sas_token_file: str | None = None
    """Where `azure_sas_token` was read from, if it is not in the configuration itself."""
    azure_account_key: SecretStr | None = None
    azure_connection_string: SecretStr | None = None
    endpoint_ip: str | None = None
    """Where the service's host is connected to; its certificate is checked against its name all the same."""
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_profile: str | None = None
    aws_endpoint_url: str | None = None
    aws_requester_pays: bool | None = None
    """Whether whoever asks for an object pays for its transfer, as the owners of some buckets demand."""
    google_application_credentials: str | None = None
    google_token_file: str | None = None
    google_user_project: str | None = None
    """The project that pays for what is asked, as the owners of some buckets demand."""
    google_endpoint_url: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    url_query: SecretStr | None = None
    """The query of a plain `https://` address, which may hold a signature."""

    def __repr_args__(self) -> Iterable[tuple[str | None, object]]:
        return [(name, value) for name, value in self if value is not None]


class Location(_Frozen):
    """A place and how to get in.

    `path` may be given as people paste it; it becomes `az://container/prefix`, `s3://…`, `gs://…`, another
    URL, `zip://…::…` or `tar://…::…` of these, or stays a local path, and credentials in it move to `auth`.
    ValueError (of pydantic) if it cannot.
    """

    path: str
    auth: Auth = Auth()

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, data: object) -> object:
        if not isinstance(data, dict) or not isinstance(data.get("path"), str):
            return data
        address = parse_address(data["path"])
        pasted = {
            "azure_account_name": address.account_name,
            "azure_account_url": address.account_url,
            "azure_sas_token": address.sas_token,
            "username": address.username,
            "password": address.password,
            "url_query": address.query,
        }
        known = {name: value for name, value in pasted.items() if value}
        if not known:
            return {**data, "path": address.path}
        auth = Auth.model_validate(data.get("auth", Auth()))
        # Through validation and not model_copy, which would leave a plain string where a SecretStr belongs.
        given = {name: value for name, value in auth if value is not None}
        if address.sas_token and auth.mode is None:
            known["mode"] = AuthMode.SAS_TOKEN
        return {**data, "path": address.path, "auth": Auth.model_validate({**known, **given})}

    @property
    def scheme(self) -> str:
        """One of `file`, `az`, `s3`, `gs`, `https`, …, `zip` and `tar`"""
        return scheme_of(self.path)

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    @property
    def is_archive(self) -> bool:
        return self.scheme in ARCHIVES

    @property
    def outer(self) -> Self:
        """Of an archive: the file that it is, with the same credentials."""
        return self.model_copy(update={"path": self.path.partition("::")[2]})

    @property
    def inner(self) -> str:
        """Of an archive: the directory in it that is meant; "" for all of it."""
        return self._rest.partition("::")[0]

    @property
    def local_path(self) -> Path:
        """The path on this machine, `~` expanded; relative ones are relative to the current directory."""
        if not self.is_local:
            raise ValueError(f"{self} is not a local path")
        return expanded(self.path)

    @property
    def container(self) -> str:
        """The container or bucket (for other services the host); "" for a local path."""
        return "" if self.is_local else self._rest.partition("/")[0]

    @property
    def prefix(self) -> str:
        """What follows the container, without slashes at its ends; "" for a local path."""
        return "" if self.is_local else self._rest.partition("/")[2].strip("/")

    @property
    def _rest(self) -> str:
        return self.path.partition("://")[2]

    def split(self) -> tuple[Self, str]:
        """The place that holds this one, with the same credentials, and this one's name in it.

        Raises ValueError when there is no name: a container or the root of a disk.
        """
        if self.is_local:
            path = self.local_path
            parent, name = str(path.parent), path.name
        else:
            inside = PurePosixPath(self.prefix)
            parent, name = f"{self.scheme}://{self.container}", inside.name
            if len(inside.parts) > 1:
                parent += f"/{inside.parent}"
        if not name:
            raise ValueError(f"{self} has no name of a file in it")
        return self.model_copy(update={"path": parent}), name

    def __str__(self) -> str:
        return self.path


class JournalSettings(_Frozen):
    """Where the journal is worked on, and where it is kept."""

    local_path: Path
    cloud: Location
    """The journal object itself, e.g. `az://container/dir/journal.db`, or a local file."""
    backups: BackupCount = 3
    """How many of the last journals are kept beside the cloud's; 0 is none."""

    @property
    def cloud_directory(self) -> Location:
        """Where the cloud journal and its lock are."""
        return self.cloud.split()[0]

    @property
    def cloud_name(self) -> str:
        """The name of the cloud journal in `cloud_directory`."""
        return self.cloud.split()[1]


class CentralSettings(_Frozen):
    """Where the files go."""

    location: Location
    patient_first: bool = True
    tier: str | None = None
    """Azure's access tier, as Azure writes it (`Cool`); None is the account's own default."""
    overwrite: Overwrite = Overwrite.NEVER


class SiteSettings(_Frozen):
    """Where the files of one modality are, and which they are."""

    modality: str
    location: Location
    pattern: str
    versioned: bool = False
    """Whether `pattern` finds a version in the path, which then is the folder of the file's key."""
    omop_per_patient: bool = False
    follow_links: bool | None = None
    """Whether links to directories, and those that lead out of the source, are followed; None: nobody has said."""

    def has(self, path: str) -> bool:
        """Return whether a file of this path below the source's root belongs to the modality."""
        return Pattern.parse(self.pattern).match(path) is not None


class Settings(_Frozen):
    """Everything that `config.toml` and the environment say, with the defaults for what they do not say."""

    file: Path
    mode: JournalingMode = JournalingMode.APPEND
    modalities: tuple[str, ...]
    journal: JournalSettings
    central: CentralSettings
    sites: Mapping[str, SiteSettings]
    upload_method: UploadMethod = UploadMethod.BUILTIN
    num_threads: ThreadCount = 16
    page_size: PageSize = 1_000
    fingerprint: FingerprintTime = FingerprintTime.ON_UPDATE
    deletion_limit: Share = 0.2
    outside_limit: Share = 0.5
    """The share of a source's files that may come to match no pattern without a person being asked to look."""
    accept_size_evidence: bool = False
    retry_seconds: Seconds = 900.0
    credential_seconds: Seconds = 0.0
    """For how long new credentials are waited for when they have expired; of the command line."""
    environment_file: Path | None = None
    """A file of environment variables, which those of the environment itself come before."""
    bandwidth_limit: BandwidthLimit | None = None
    ca_bundle: Path | None = None
    """A file or directory of certificates to trust instead of the usual ones; it was there when it was loaded."""
    proxy: SecretStr | None = None
    """The proxy's URL, which may hold a password, or `NO_PROXY`; None is what the environment says."""
    warnings: tuple[str, ...] = ()
    """What loading noticed and a person should know of."""
    origins: Mapping[str, str] = Field(default_factory=dict)
    """Where each value that is no default comes from: `central.location.path` → `[central_path] path`."""
