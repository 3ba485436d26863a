"""Azure storage accounts: a name and an address that follow from each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_NUMERIC_HOST = re.compile(r"localhost|[0-9.]+|\[?[0-9a-f:]+\]?")


def is_numeric_host(host: str) -> bool:
    """Return whether a host is an IP address or this machine: then the account is in the path, as with emulators."""
    return bool(_NUMERIC_HOST.fullmatch(host))


def has_own_name(host: str) -> bool:
    """Whether a host is a name of a site's own, which need not say which account is behind it."""
    return ".blob." not in host and not is_numeric_host(host)


def split_address(url: str) -> SplitResult:
    """The parts of an address; ValueError, which shows nothing of it, when it cannot be one."""
    try:
        parts = urlsplit(url)
        # Only asking for the port has it looked at.
        is_good = parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        # A password with a slash in it ends the host, and then stands where the port should.
        raise ValueError("is not an address: after the host a number may follow, and a / in a password is %2F")
    return parts


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account; both are None when nothing is known."""

    name: str | None
    url: str | None

    @property
    def is_unprotected(self) -> bool:
        """Whether the address is plain http and not on this machine."""
        parts = urlsplit(self.url or "")
        host = parts.hostname or ""
        return parts.scheme == "http" and host not in ("localhost", "::1") and not host.startswith("127.")


def own_address(account: Account) -> str | None:
    """The address at which the service itself finds an account, whatever host stands in front of it."""
    host = urlsplit(account.url or "").hostname or ""
    if account.name is None or not host or is_numeric_host(host) or ".blob." in host:
        return account.url
    return f"https://{account.name}.blob.core.windows.net"


def account_of(name: str | None, url: str | None) -> Account:
    """Both from either. ValueError when they contradict each other or the address has more than the account."""
    if url is None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("is not the name of a storage account: it has letters and digits")
        return Account(name, name and f"https://{name}.blob.core.windows.net")
    if "://" not in url:
        url = f"https://{url}"
    parts = split_address(url)
    host, directories = parts.hostname or "", [part for part in parts.path.split("/") if part]
    if is_numeric_host(host):
        if len(directories) != 1:
            raise ValueError(f"{parts.scheme}://{parts.netloc} must be followed by the account's name, and no more")
        named = directories[0]
    else:
        if directories:
            raise ValueError("must be the account only; the container belongs in path")
        named = host.partition(".")[0].removesuffix("-secondary")
        # A host of one's own (a private endpoint, a proxy) need not begin with the account's name.
        if has_own_name(host) and name is not None:
            named = name
    if parts.query:
        raise ValueError("must be the account only; what follows the ? belongs in azure_sas_token")
    if name is not None and name != named:
        raise ValueError(f"is the address of {named}, but azure_account_name is {name}")
    return Account(named, f"{parts.scheme}://{parts.netloc}" + "".join(f"/{part}" for part in directories))


def account_of_connection_string(text: str) -> Account:
    """What a connection string says of the account; empty for one that says nothing. ValueError for no address."""
    pairs = (part.partition("=") for part in text.split(";"))
    values = {name.strip().lower(): value.strip() for name, _, value in pairs}
    name = values.get("accountname")
    url = values.get("blobendpoint", "").rstrip("/").partition("?")[0]
    if not url and name:
        protocol = values.get("defaultendpointsprotocol", "https")
        url = f"{protocol}://{name}.blob.{values.get('endpointsuffix', 'core.windows.net')}"
    host = split_address(url).hostname or "" if url else ""
    if url and not name:
        name = (
            url.rpartition("/")[2] if is_numeric_host(host) else None if has_own_name(host) else host.partition(".")[0]
        )
    return Account(name or None, url or None)
