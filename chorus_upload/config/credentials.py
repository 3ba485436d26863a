"""Which credentials a place gets: from the file, the environment and a pasted address, never from another place.

In this order:

1. `CHORUS_UPLOAD_<PLACE>_<KEY>` in the environment (see `overrides`). One that is a credential replaces every
   credential that the file has for this place.
2. The file, with what was pasted into the path.
3. The usual variables of the cloud (`AZURE_STORAGE_KEY`, `AWS_ACCESS_KEY_ID`, …): only if the place is in that
   cloud and has no credential of its own, and not if they are for another storage account.
4. The identity of the machine or user.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from chorus_upload.config.accounts import Account, account_of, account_of_connection_string, has_own_name
from chorus_upload.config.addresses import Address
from chorus_upload.config.keys import CREDENTIALS
from chorus_upload.config.local_paths import expanded
from chorus_upload.config.pasting import clean_token, unquoted
from chorus_upload.config.reading import Complaints, Entry, Given, convert, is_empty
from chorus_upload.config.settings import Auth, AuthMode


@dataclass(frozen=True, slots=True)
class _Kind:
    """One way to authenticate: the fields it needs, and those that may come with them."""

    mode: AuthMode
    needs: tuple[str, ...]
    also: tuple[str, ...] = ()

    def is_complete(self, given: Given) -> bool:
        return all(name in given for name in self.needs)

    def take(self, given: Given) -> Given:
        return {name: given[name] for name in (*self.needs, *self.also) if name in given}


@dataclass(frozen=True, slots=True)
class _Cloud:
    """How one cloud can be entered. Of several credentials the first kind is used: the narrowest."""

    kinds: tuple[_Kind, ...]
    identity: tuple[str, ...] = ()
    """Fields that say where the service is; they are no credentials."""

    @property
    def modes(self) -> tuple[AuthMode, ...]:
        return (AuthMode.LOGIN, *dict.fromkeys(kind.mode for kind in self.kinds), AuthMode.ANONYMOUS)


_LONGEST_TOKEN = 1 << 16
_ACCOUNT = ("azure_account_name", "azure_account_url")
_CLOUDS = {
    "az": _Cloud(
        (
            _Kind(AuthMode.SAS_TOKEN, ("azure_sas_token",)),
            _Kind(AuthMode.SAS_TOKEN, ("azure_sas_token_file",)),
            _Kind(AuthMode.CONNECTION_STRING, ("azure_connection_string",)),
            _Kind(AuthMode.ACCOUNT_KEY, ("azure_account_key",)),
        ),
        identity=(*_ACCOUNT, "endpoint_ip"),
    ),
    "s3": _Cloud(
        (
            _Kind(AuthMode.ACCESS_KEY, ("aws_access_key_id", "aws_secret_access_key"), ("aws_session_token",)),
            _Kind(AuthMode.PROFILE, ("aws_profile",)),
        ),
        identity=("aws_endpoint_url", "aws_requester_pays"),
    ),
    "gs": _Cloud(
        (
            _Kind(AuthMode.TOKEN_FILE, ("google_token_file",)),
            _Kind(AuthMode.APPLICATION_CREDENTIALS, ("google_application_credentials",)),
        ),
        identity=("google_endpoint_url", "google_user_project", "endpoint_ip"),
    ),
}
_IDENTITY = frozenset(name for cloud in _CLOUDS.values() for name in cloud.identity)
_KEYS = {key.field: key for key in CREDENTIALS if key.current}


def overlay(below: Given, above: Given) -> Given:
    """`above` before `below`; one credential above (or a mode) hides every credential and the mode below."""
    if not above.keys() <= _IDENTITY:
        below = {name: entry for name, entry in below.items() if name in _IDENTITY}
    return below | above


def resolve(
    given: Given,
    *,
    overrides: Given,
    address: Address,
    where: str,
    environ: Mapping[str, str],
    complaints: Complaints,
) -> Given:
    """The fields of `Auth` with which the place at `address` is entered, `mode` included.

    `given` is what the file says, and `where` its section, for complaints: a missing half, a mode without its
    credential, another account's name are errors; credentials that are not used are warnings, and are left out
    of the result.
    """
    given, overrides = _tidy(given), _tidy(overrides)
    cloud = _CLOUDS.get(address.service)
    if cloud is None:
        if unused := [name for name in given | overrides if name != "mode"]:
            complaints.warning(where, f"{', '.join(unused)}: not used, because the path needs no such credentials")
        if address.service == "http" and (address.password or address.query):
            complaints.warning(f"{where} path", "http:// sends data and credentials unprotected; use https://")
        return _pasted_user(address, where)
    given = overlay(_with_pasted(given, address, where=where, complaints=complaints), overrides)

    own = Account(None, None)
    if address.service == "az":
        try:
            own = account_of(_text(given, "azure_account_name"), _text(given, "azure_account_url"))
        except ValueError as error:
            wrong = "azure_account_url" if "azure_account_url" in given else "azure_account_name"
            complaints.error(f"{where} {wrong}", str(error))
            return {}
    usual = _usual(cloud, environ, own=own, complaints=complaints)
    chosen = _choose(cloud, given, usual=usual, where=where, complaints=complaints)
    if chosen is None:
        return {}
    if file := chosen.get("azure_sas_token_file"):
        chosen |= _token_in(file, complaints)
    identity = {name: entry for name, entry in (usual | given).items() if name in cloud.identity}
    if address.service == "az":
        named = {name: entry for name, entry in identity.items() if name in _ACCOUNT}
        try:
            identity |= _azure_account(own, named, chosen=chosen, where=where, complaints=complaints)
        except ValueError as error:
            complaints.error(where, f"names no account: {error}")
    return chosen | identity


def auth_of(fields: Given) -> Auth:
    """The credentials without their origins."""
    return Auth.model_validate({name: entry.value for name, entry in fields.items()})


def _tidy(given: Given) -> Given:
    """`given` without what pasting adds to secrets: quotes, spaces, the address or `?` before a token."""
    result: Given = {}
    for name, entry in given.items():
        value = entry.value
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            is_token = name == "azure_sas_token"
            value = SecretStr(clean_token(text).rpartition("?")[2] if is_token else unquoted(text))
        elif value is AuthMode.SAS:
            value = AuthMode.SAS_TOKEN
        if not is_empty(value):
            result[name] = Entry(value, entry.origin)
    return result


def _pasted_user(address: Address, where: str) -> Given:
    origin = f"{where} path"
    pasted: Given = {}
    if address.username:
        pasted["username"] = Entry(address.username, origin)
    if address.password:
        pasted["password"] = Entry(SecretStr(address.password), origin)
    if address.query:
        pasted["url_query"] = Entry(SecretStr(address.query), origin)
    return pasted


def _with_pasted(given: Given, address: Address, *, where: str, complaints: Complaints) -> Given:
    """`given` and the account and the token of a pasted SAS URL; it is an error to have two different tokens."""
    origin = f"{where} path"
    pasted: Given = {}
    if address.account_url:
        if address.account_name:
            pasted["azure_account_name"] = Entry(address.account_name, origin)
        pasted["azure_account_url"] = Entry(address.account_url, origin)
    if address.sas_token:
        pasted["azure_sas_token"] = Entry(SecretStr(address.sas_token), origin)
        if "azure_sas_token" in given and given["azure_sas_token"].value != pasted["azure_sas_token"].value:
            complaints.error(given["azure_sas_token"].origin, "another token than in path; keep one of the two")
    return pasted | given


def _usual(cloud: _Cloud, environ: Mapping[str, str], *, own: Account, complaints: Complaints) -> Given:
    """What the usual environment variables of the cloud say, unless it is for another account than `own`."""
    fields = {*cloud.identity, *(name for kind in cloud.kinds for name in (*kind.needs, *kind.also))}
    found: Given = {}
    for key in _KEYS.values():
        for variable in reversed(key.variables):
            text = environ.get(variable, "").strip()
            if key.field in fields and text:
                origin = f"environment variable {variable}"
                try:
                    found[key.field] = Entry(convert(key, text), origin)
                except ValueError as error:
                    complaints.error(origin, str(error))
    found = _tidy(found)
    if own.name is None:
        return found
    connection = found.pop("azure_connection_string", None)
    if found.get("azure_account_name", Entry(own.name, "")).value != own.name:
        found = {}
    with suppress(ValueError):
        if connection and account_of_connection_string(connection.value.get_secret_value()).name == own.name:
            found["azure_connection_string"] = connection
    return found


def _choose(cloud: _Cloud, given: Given, *, usual: Given, where: str, complaints: Complaints) -> Given | None:
    """The mode and the fields of the credential that is used; None after a complaint."""
    mode = given.get("mode")
    if mode is not None and mode.value not in cloud.modes:
        possible = ", ".join(f'"{known}"' for known in cloud.modes)
        complaints.error(mode.origin, f'"{mode.value}" does not fit this path; possible are {possible}')
        return None
    for kind in cloud.kinds:
        missing = [name for name in kind.needs if name not in given]
        if 0 < len(missing) < len(kind.needs):
            complaints.error(f"{where} {missing[0]}", f"is missing: {' and '.join(kind.needs)} go together")
            return None
    wanted = [kind for kind in cloud.kinds if mode is None or kind.mode is mode.value]
    has_own = any(name in given for kind in cloud.kinds for name in kind.needs)
    sources = (given,) if has_own else (given, usual)
    usable = [kind.take(source) for source in sources for kind in wanted if kind.is_complete(source)]
    used = usable[0] if usable else {}
    if used:
        kind = next(kind for kind in wanted if kind.is_complete(used))
        mode = mode or Entry(kind.mode, next(iter(used.values())).origin)
    elif mode is None:
        mode = Entry(AuthMode.LOGIN, "")
    elif wanted:
        variables = " and ".join(_KEYS[name].variables[0] for name in wanted[0].needs)
        needs = " and ".join(wanted[0].needs)
        complaints.error(mode.origin, f'"{mode.value}" needs {needs}, or in the environment {variables}')
        return None
    if unused := [name for name in given if name not in (*used, *cloud.identity, "mode")]:
        complaints.warning(where, f"{', '.join(unused)}: not used, because the mode is {mode.value}; better removed")
    return {"mode": mode} | used


def _azure_account(own: Account, identity: Given, *, chosen: Given, where: str, complaints: Complaints) -> Given:
    """Name and address of the storage account, each following from the other or from the connection string."""
    account, origins = own, identity
    if connection := chosen.get("azure_connection_string"):
        named = account_of_connection_string(connection.value.get_secret_value())
        if own.name and named.name and own.name != named.name:
            complaints.error(connection.origin, f"is for the account {named.name}, but the place is in {own.name}")
        account = Account(named.name or own.name, named.url or own.url)
        origins = {"azure_account_name": connection} | identity
    elif own.name is None and "azure_account_name" in identity:
        account = account_of(str(identity["azure_account_name"].value), None)
    elif own.url is None:
        complaints.error(f"{where} azure_account_name", "is missing: which storage account is it?")
    if account.is_unprotected:
        complaints.warning(f"{where} azure_account_url", "http:// sends data and credentials unprotected; use https://")
    origin = next((entry.origin for entry in origins.values()), "")
    # The first label of a site's own host is no account's name.
    is_told = "azure_account_name" in origins or not has_own_name(urlsplit(account.url or "").hostname or "")
    found = {"azure_account_name": account.name if is_told else None, "azure_account_url": account.url}
    return {
        name: Entry(value, origins[name].origin if name in origins else origin)
        for name, value in found.items()
        if value
    }


def _token_in(file: Entry, complaints: Complaints) -> Given:
    """The SAS token that a file holds."""
    try:
        with expanded(str(file.value)).open(encoding="utf-8-sig") as stream:
            text = clean_token(stream.read(_LONGEST_TOKEN)).rpartition("?")[2]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        complaints.error(file.origin, f"{file.value} cannot be read: {reason}")
        return {}
    if not text:
        complaints.error(file.origin, f"{file.value} is empty: it is to hold a SAS token and nothing else")
        return {}
    return {"azure_sas_token": Entry(SecretStr(text), file.origin)}


def _text(given: Given, name: str) -> str | None:
    return str(given[name].value) if name in given else None
