"""Settings of the relay process."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from .relay_limits import RelayLimits

EVERY_HOST: Final = "*"
"""Host that stands for all addresses of the machine."""
DISCOVERY_PORT: Final = 7842
"""UDP port at which iroh endpoints look for address discovery."""


class ListenAddress(NamedTuple):
    """Host, or ``EVERY_HOST``, and port to listen on. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def bound_host(self) -> str | None:
        """Host for the event loop; None for all addresses."""
        return None if self.host == EVERY_HOST else self.host


class RelayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the relay process.

    Attributes:
        directory_file: SQLite file of the directory; None keeps its packets in memory.
        certificate: PEM file of the certificate chain; None serves plain HTTP, without address discovery.
        key: PEM file of the certificate's secret key.
        discovery_port: UDP port of address discovery.
        allow: file with the keys that may connect and publish; None admits every key.
        metrics: address of the page with metrics; None for no such page.
    """

    listen: ListenAddress
    directory_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    discovery_port: int = DISCOVERY_PORT
    allow: Path | None = None
    metrics: ListenAddress | None = None
    limits: RelayLimits = RelayLimits()
