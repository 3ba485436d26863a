"""How services are reached: the one set of choices that every connection of a run shares."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import certifi

from chorus_upload.config.renewal import Renewal
from chorus_upload.config.settings import NO_PROXY, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the configuration says of the way to the services.

    `patience` is for how many seconds a failing service is asked again; `connections` is how many requests are
    under way at once, at most. `ca_bundle` is a file or directory of certificates to trust instead of the usual
    ones. `proxy` is a URL, and may hold a password; None means what the environment says, "" none. When
    credentials have expired, `renewal` is asked for other ones, for `credential_patience` seconds at most.
    """

    patience: float = 900.0
    connections: int = 16
    ca_bundle: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    credential_patience: float = 0.0
    renewal: Renewal | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the configuration says."""
        proxy = settings.proxy.get_secret_value() if settings.proxy else None
        return cls(
            patience=settings.retry_seconds,
            connections=settings.num_threads,
            ca_bundle=settings.ca_bundle,
            credential_patience=settings.credential_seconds,
            renewal=Renewal(settings, environ=os.environ),
            proxy="" if proxy == NO_PROXY else proxy,
        )

    @property
    def trusted(self) -> Path:
        """The file or directory of certificates to trust: the configured one, the environment's, or the usual ones."""
        if self.ca_bundle is not None:
            return self.ca_bundle
        named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        return Path(named or certifi.where())

    def proxy_for(self, scheme: str, host: str) -> str:
        """The proxy for a host: the configured one, or what the environment (on Windows and macOS: the system) says.

        "" for none; this machine is reached without one, unless one is configured.
        """
        if self.proxy is not None:
            return self.proxy
        if is_this_machine(host) or urllib.request.proxy_bypass(host):
            return ""
        found = urllib.request.getproxies()
        return found.get(scheme) or found.get("all") or ""


def is_this_machine(host: str) -> bool:
    """Whether a host is a loopback address, to which nothing leaves this machine."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
