"""The same clouds as for the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import container, disk, site, wire

__all__ = ["container", "disk", "site", "wire"]
