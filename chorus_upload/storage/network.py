"""How services are reached: the one set of choices that every connection of a run shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from chorus_upload.config.settings import NO_PROXY, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the configuration says of the way to the services.

    `patience` is for how many seconds a failing service is asked again; `connections` is how many requests are
    under way at once, at most. `ca_bundle` is a file or directory of certificates to trust instead of the usual
    ones. `proxy` is a URL, and may hold a password; None means what the environment says, "" none.
    """

    patience: float = 900.0
    connections: int = 16
    ca_bundle: Path | None = None
    proxy: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the configuration says."""
        proxy = settings.proxy.get_secret_value() if settings.proxy else None
        return cls(
            patience=settings.retry_seconds,
            connections=settings.num_threads,
            ca_bundle=settings.ca_bundle,
            proxy="" if proxy == NO_PROXY else proxy,
        )
