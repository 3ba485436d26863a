"""From a place in the configuration to what stores or gives its files: the only switch on the kind of place.

An SDK is imported when the first of its stores is opened, and not before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chorus_upload.config.accounts import Account, account_of, own_address
from chorus_upload.config.local_paths import expanded
from chorus_upload.config.own_files import OwnFiles
from chorus_upload.config.settings import Auth, AuthMode, Location, Settings, SiteSettings
from chorus_upload.errors import ConfigError, TransientError
from chorus_upload.storage.cloud_source import CloudSource
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.liveness import Liveness
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.local_source import LocalSource
from chorus_upload.storage.network import Network
from chorus_upload.storage.renewal import CredentialWait
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.source import Source
from chorus_upload.storage.store import Store
from chorus_upload.storage.traffic import Traffic

if TYPE_CHECKING:
    from chorus_upload.storage.azure_credentials import AzureCredential
    from chorus_upload.storage.gs_credentials import Access
    from chorus_upload.storage.outer import Outer
    from chorus_upload.storage.share_source import Share
    from chorus_upload.storage.web import Web

_STORES = "a local directory, az:// (Azure Blob Storage), s3:// (Amazon S3 and what is like it), gs:// (Google)"
_SOURCES = f"{_STORES}, https://, sftp://, smb://, and archives there: zip://INNER/PATH::PLACE, tar://INNER/PATH::PLACE"
_STORE_SCHEMES = ("file", "az", "s3", "gs")
_SOURCE_SCHEMES = (*_STORE_SCHEMES, "http", "https", "sftp", "smb")
_SHARES = ("sftp", "smb")
_LIBRARIES = {
    "s3": ("s3fs", "s3"),
    "gs": ("google.auth", "gcs"),
    "sftp": ("paramiko", "sftp"),
    "smb": ("smbclient", "smb"),
}
"""By the scheme of a place: the library without which it cannot be opened, and the extra that installs it."""
_SOURCE_BLOCK = 4 << 20
"""How much of a file of a service is fetched at once; as much is held for every file that is under way, or ahead."""
ASIDE_SECONDS = 60.0
"""For how long one object is tried while the place responds to others, where other objects wait."""
_S3_MODES = (None, AuthMode.LOGIN, AuthMode.ACCESS_KEY, AuthMode.PROFILE, AuthMode.ANONYMOUS)


def open_store(
    location: Location,
    network: Network,
    *,
    traffic: Traffic | None = None,
    stop: threading.Event | None = None,
    sessions: Path | None = None,
    others_follow: bool = False,
    check: ConditionCheck | None = None,
) -> Store:
    """The store at `location`, to be closed by the caller. Nothing is read or sent yet.

    `check` is what is known of the place in this run; without one, its first conditional writes find out whether the
    service honours conditions. In a directory they are this program's own.

    `traffic` is shared with whoever else sends in the same run; without one the store has its own. `sessions` is a
    file for what a store has to remember of uploads under way, where the service does not; without one they are not
    gone on with in another run. With `others_follow` a request that keeps failing while the place responds to others is
    given up after ASIDE_SECONDS.

    Once `stop` is set nothing is waited for any more. Raises ConfigError when this version cannot open such a
    place.
    """
    if location.is_local:
        return LocalStore(location.local_path)
    check = check or ConditionCheck(str(location))
    retry = _retry(location, network, stop, aside=ASIDE_SECONDS if others_follow else None)
    store: Store
    match location.scheme:
        case "az":
            store = _azure(location, network, traffic, retry=retry, check=check)
        case "s3":
            store = _s3(location, network, traffic, retry=retry, check=check)
        case "gs":
            store = _gs(location, network, traffic, retry=retry, sessions=sessions, check=check)
        case _:
            raise _unsupported(location, "stored", _STORES)
    retry.liveness.ask = store.probe
    return store


def forget_sessions(sessions: Path) -> None:
    """Nothing is under way any more of what `open_store` remembers there: an address opens one object."""
    from chorus_upload.storage.gs_sessions import InFile

    InFile(sessions).forget_all()


def unsupported(settings: Settings) -> list[str]:
    """What the configuration names and this version cannot open, as sentences."""
    found = [
        _unsupported(place, "stored", _STORES).message
        for place in (settings.journal.cloud, settings.central.location)
        if place.scheme not in _STORE_SCHEMES
    ]
    found += [
        f"{site.modality}: {_unsupported(site.location, 'read', _SOURCES).message}"
        for site in settings.sites.values()
        if _place(site.location).scheme not in _SOURCE_SCHEMES
    ]
    return found


def missing_libraries(settings: Settings) -> list[str]:
    """What has to be installed before the places of the configuration can be opened, as sentences."""
    places = [settings.journal.cloud, settings.central.location, *(site.location for site in settings.sites.values())]
    found = {}
    for place in map(_place, places):
        library, extra = _LIBRARIES.get(place.scheme, ("", ""))
        if library and not (place.scheme == "gs" and place.auth.google_token_file) and not _is_installed(library):
            found[extra] = f'{place.scheme}:// places need {library}: pip install "chorus-upload[{extra}]"'
    return list(found.values())


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ImportError:
        # A package of which it would be a part is missing.
        return False


def require_supported(settings: Settings) -> None:
    """Raise one ConfigError for everything that `unsupported` finds, before any work is begun."""
    if found := unsupported(settings):
        raise ConfigError(
            "this version cannot do that: " + "; ".join(found),
            hint=f"Central stores and journals: {_STORES}. Sources: {_SOURCES}.",
        )


def open_source(
    site: SiteSettings, network: Network, *, own: OwnFiles = OwnFiles(), stop: threading.Event | None = None
) -> Source:
    """The source of one modality, to be closed by the caller; `stop` as for a store.

    Raises ConfigError when this version cannot open it.
    """
    location = site.location
    if location.is_local:
        return LocalSource(location.local_path, follow_links=site.follow_links, own=own)
    if location.is_archive:
        return _archive(location, network, retry=_retry(location, network, stop, is_source=True))
    if location.scheme in ("http", "https"):
        from chorus_upload.storage.web_source import WebSource

        web = _web(location, network, retry=_retry(location, network, stop, is_source=True))
        return WebSource(web, connections=network.connections)
    if location.scheme in _SHARES:
        from chorus_upload.storage.share_source import ShareSource

        return ShareSource(
            _share(location), _retry(location, network, stop, is_source=True), follow_links=site.follow_links
        )
    return CloudSource(
        _origin(location, network, retry=_retry(location, network, stop, is_source=True)), part=_SOURCE_BLOCK
    )


def is_sequential(location: Location) -> bool:
    """Whether the source at `location` will be one whose files are best read in the order in which they were seen."""
    return location.scheme == "tar"


def _archive(location: Location, network: Network, *, retry: Retry) -> Source:
    from chorus_upload.storage.tar_source import TarSource
    from chorus_upload.storage.zip_source import ZipSource

    outer = _outer(location.outer, network, retry=retry)
    return (TarSource if location.scheme == "tar" else ZipSource)(outer, location.inner)


def _outer(location: Location, network: Network, *, retry: Retry) -> Outer:
    """The file at `location`, which is an archive."""
    from chorus_upload.storage.outer import LocalOuter, StoreOuter

    if location.is_local:
        return LocalOuter(location.local_path)
    if location.scheme in ("http", "https"):
        from chorus_upload.storage.web import WebOuter

        return WebOuter(_web(location, network, retry=retry))
    try:
        directory, name = location.split()
    except ValueError:
        raise ConfigError(f"{location} names no archive", hint="Write the whole address of the file.") from None
    if location.scheme in _SHARES:
        from chorus_upload.storage.share_source import ShareOuter

        return ShareOuter(_share(directory), name, retry)
    return StoreOuter(_origin(directory, network, retry=retry), name)


def _origin(location: Location, network: Network, *, retry: Retry) -> Store:
    """A store that is only read from."""
    if location.scheme == "az":
        return _azure(location, network, None, retry=retry, block_size=_SOURCE_BLOCK)
    if location.scheme == "s3":
        return _s3(location, network, None, retry=retry, part_size=_SOURCE_BLOCK)
    if location.scheme == "gs":
        return _gs(location, network, None, retry=retry, chunk_size=_SOURCE_BLOCK)
    raise _unsupported(location, "read", _SOURCES)


def _share(location: Location) -> Share:
    """A directory that is reached by sftp or smb."""
    host, _, port = location.container.partition(":")
    username, secret = location.auth.username, location.auth.password
    password = None if secret is None else secret.get_secret_value()
    if not host or (port and not port.isdecimal()):
        raise ConfigError(f"{location} names no host", hint=f"Write {location.scheme}://HOST/PATH.")
    try:
        if location.scheme == "sftp":
            from chorus_upload.storage.sftp import SftpAccess, SftpShare

            return SftpShare(SftpAccess(host, int(port or 22), username, password), f"/{location.prefix}")
        from chorus_upload.storage.smb import SmbAccess, SmbShare

        return SmbShare(SmbAccess(host, int(port or 445), username, password), location.prefix)
    except ModuleNotFoundError as error:
        missing = error.name
    raise ConfigError(
        f"{location}: {location.scheme}:// places need a library that is not installed ({missing})",
        hint=f'Install it: pip install "chorus-upload[{location.scheme}]"',
    )


def _web(location: Location, network: Network, *, retry: Retry) -> Web:
    from chorus_upload.storage.web import Web, WebAccess

    query, password = location.auth.url_query, location.auth.password
    access = WebAccess(
        query=None if query is None else query.get_secret_value(),
        username=location.auth.username,
        password=None if password is None else password.get_secret_value(),
    )
    return Web(location.path, access, network, retry)


def _place(location: Location) -> Location:
    """Where the bytes of a source are."""
    return location.outer if location.is_archive else location


def open_directory(root: Path, *, own: OwnFiles) -> Source:
    """A directory of this machine, to be closed by the caller; links to directories are not followed."""
    return LocalSource(root, follow_links=None, own=own)


def _unsupported(location: Location, verb: str, supported: str) -> ConfigError:
    return ConfigError(
        f"{location}: files cannot be {verb} at {location.scheme}:// places", hint=f"Supported are: {supported}."
    )


def _retry(
    location: Location,
    network: Network,
    stop: threading.Event | None,
    *,
    aside: float | None = None,
    is_source: bool = False,
) -> Retry:
    """How patiently a place is asked, and where it is noted whether it responds."""
    place = _place(location)
    host, look_at = _host(place)
    liveness = Liveness(f"{host} ({place})" if host else str(place), look_at=look_at)
    files = () if network.renewal is None else network.renewal.files
    credentials = CredentialWait(liveness, patience=network.credential_patience, files=files)

    def sleep(seconds: float) -> None:
        if stop is None:
            time.sleep(seconds)
        elif stop.wait(seconds):
            raise TransientError("given up, because the run is to end")

    return Retry(
        patience=network.patience,
        aside=aside,
        sleep=sleep,
        liveness=liveness,
        credentials=credentials,
        is_of_source=is_source,
    )


def _take_new_credentials(
    retry: Retry, location: Location, network: Network, use: Callable[[Location], None] | None = None
) -> None:
    """Have a place entered with what the configuration says when its credentials have expired; `use` takes them over.

    Without it the place looks into its file of credentials by itself.
    """
    renewal, wait = network.renewal, retry.credentials
    if renewal is None or wait is None:
        return
    known = location.auth

    def renew() -> bool:
        nonlocal known
        if not renewal.has_changed():
            return False
        now = renewal.auth(location.auth)
        # What a profile of S3 holds is in a file of its own.
        if use is not None and (now != known or location.scheme == "s3"):
            known = now
            use(location.model_copy(update={"auth": now}))
        return True

    wait.renew = renew


def _host(place: Location) -> tuple[str, str]:
    """The host of a place, and the keys of the configuration that lead to it."""
    auth = place.auth
    match place.scheme:
        case "az":
            with suppress(ConfigError, ValueError):
                host = urlsplit(_account(place).url or "").hostname or ""
                return host, "azure_account_name, azure_account_url, endpoint_ip and proxy"
            return "", "azure_connection_string and proxy"
        case "s3":
            host = urlsplit(auth.aws_endpoint_url or f"https://{place.container}.s3.amazonaws.com").hostname or ""
            return host, "path, aws_endpoint_url and proxy"
        case "gs":
            endpoint = auth.google_endpoint_url or "storage.googleapis.com"
            host = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or ""
            return host, "google_endpoint_url, endpoint_ip and proxy"
        case "http" | "https":
            return place.container, "path and proxy"
        case _:
            return place.container, "path"


def _azure(
    location: Location,
    network: Network,
    traffic: Traffic | None,
    *,
    retry: Retry,
    block_size: int = 8 << 20,
    check: ConditionCheck | None = None,
) -> Store:
    # The SDK takes a third of a second to import, which `--help` and local work need not wait for.
    from chorus_upload.storage.azure import AzureStore

    if not location.container:
        raise ConfigError(f"{location} names no container", hint="Write az://CONTAINER or az://CONTAINER/PATH.")
    account = _account(location)
    store = AzureStore(
        account.url,
        location.container,
        prefix=location.prefix,
        own_url=own_address(account),
        credential=_azure_credential(location),
        retry=retry,
        endpoint_ip=location.auth.endpoint_ip,
        network=network,
        traffic=traffic,
        block_size=block_size,
        check=check,
    )
    _take_new_credentials(retry, location, network, lambda now: store.use(_azure_credential(now)))
    return store


def _s3(
    location: Location,
    network: Network,
    traffic: Traffic | None,
    *,
    retry: Retry,
    part_size: int = 8 << 20,
    check: ConditionCheck | None = None,
) -> Store:
    try:
        from chorus_upload.storage.s3 import S3Store
        from chorus_upload.storage.s3_client import S3Access
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        auth = location.auth
        if not location.container:
            raise ConfigError(f"{location} names no bucket", hint="Write s3://BUCKET or s3://BUCKET/PATH.")
        if auth.mode not in _S3_MODES:
            raise ConfigError(f"{location}: auth_mode is {auth.mode}, but there is no such credential for S3")

        def access_of(auth: Auth) -> S3Access:
            secret, token = auth.aws_secret_access_key, auth.aws_session_token
            return S3Access(
                key_id=auth.aws_access_key_id,
                secret=None if secret is None else secret.get_secret_value(),
                session_token=None if token is None else token.get_secret_value(),
                profile=auth.aws_profile,
                anonymous=auth.mode is AuthMode.ANONYMOUS,
                requester_pays=bool(auth.aws_requester_pays),
            )

        store = S3Store(
            location.container,
            access=access_of(auth),
            prefix=location.prefix,
            endpoint_url=auth.aws_endpoint_url,
            network=network,
            traffic=traffic,
            retry=retry,
            part_size=part_size,
            check=check,
        )
        _take_new_credentials(retry, location, network, lambda now: store.use(access_of(now.auth)))
        return store
    raise ConfigError(
        f"{location}: s3:// places need a library that is not installed ({missing})",
        hint='Install it: pip install "chorus-upload[s3]"',
    )


def _gs(
    location: Location,
    network: Network,
    traffic: Traffic | None,
    *,
    retry: Retry,
    sessions: Path | None = None,
    chunk_size: int = 8 << 20,
    check: ConditionCheck | None = None,
) -> Store:
    from chorus_upload.storage.gs import GsStore
    from chorus_upload.storage.gs_sessions import InFile

    if not location.container:
        raise ConfigError(f"{location} names no bucket", hint="Write gs://BUCKET or gs://BUCKET/PATH.")
    endpoint = location.auth.google_endpoint_url
    _take_new_credentials(retry, location, network)
    return GsStore(
        location.container,
        access=_google_access(location, network),
        prefix=location.prefix,
        project=location.auth.google_user_project,
        # As Google's own programs read STORAGE_EMULATOR_HOST.
        endpoint=f"http://{endpoint}" if endpoint and "://" not in endpoint else endpoint,
        endpoint_ip=location.auth.endpoint_ip,
        network=network,
        traffic=traffic,
        retry=retry,
        sessions=None if sessions is None else InFile(sessions),
        chunk_size=chunk_size,
        check=check,
    )


def _google_access(location: Location, network: Network) -> Access:
    from chorus_upload.storage.gs_credentials import Anonymous, GoogleLogin, TokenFile

    auth = location.auth
    match auth.mode:
        case AuthMode.TOKEN_FILE if auth.google_token_file is not None:
            return TokenFile(expanded(auth.google_token_file))
        case AuthMode.APPLICATION_CREDENTIALS if auth.google_application_credentials is not None:
            return GoogleLogin(expanded(auth.google_application_credentials), network)
        case AuthMode.LOGIN | None:
            return GoogleLogin(None, network)
        case AuthMode.ANONYMOUS:
            return Anonymous()
        case mode:
            raise ConfigError(f"{location}: auth_mode is {mode}, but there is no such credential for Google")


def _account(location: Location) -> Account:
    auth = location.auth
    account = account_of(auth.azure_account_name, auth.azure_account_url)
    if account.url is None and auth.azure_connection_string is None:
        raise ConfigError(
            f"{location}: the storage account is missing", hint="Set azure_account_name or azure_account_url for it."
        )
    return account


def _azure_credential(location: Location) -> AzureCredential:
    from chorus_upload.storage.azure_credentials import (
        AccountKey,
        Anonymous,
        ConnectionString,
        Login,
        SasToken,
    )

    auth = location.auth
    match _mode(auth):
        case AuthMode.LOGIN:
            return Login()
        case AuthMode.SAS_TOKEN | AuthMode.SAS if auth.azure_sas_token is not None:
            return SasToken(auth.azure_sas_token.get_secret_value())
        case AuthMode.ACCOUNT_KEY if auth.azure_account_key is not None:
            return AccountKey(_account(location).name or "", auth.azure_account_key.get_secret_value())
        case AuthMode.CONNECTION_STRING if auth.azure_connection_string is not None:
            return ConnectionString(auth.azure_connection_string.get_secret_value())
        case AuthMode.ANONYMOUS | None:
            return Anonymous()
        case mode:
            raise ConfigError(f"{location}: auth_mode is {mode}, but there is no such credential for Azure")


def _mode(auth: Auth) -> AuthMode | None:
    """The mode that was chosen, or the one that what is given stands for."""
    if auth.mode is not None:
        return auth.mode
    if auth.azure_connection_string is not None:
        return AuthMode.CONNECTION_STRING
    if auth.azure_sas_token is not None:
        return AuthMode.SAS_TOKEN
    return AuthMode.ACCOUNT_KEY if auth.azure_account_key is not None else None
