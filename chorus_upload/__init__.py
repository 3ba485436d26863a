"""chorus-upload: a journaled, incremental upload manager for research data."""

from __future__ import annotations

__version__ = "1.0.0.dev0"
