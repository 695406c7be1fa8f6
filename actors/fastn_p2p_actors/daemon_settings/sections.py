"""Settings of the daemon as typed structs, one for each section of ``config.toml``, and the defaults."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from fastn_p2p_client.limits import MAX_CLIENTS_PER_PROGRAM

from .server_urls import is_on_loopback


class NetworkMode:
    """Networks that the daemon uses to reach peer daemons."""

    LOCAL: Final = "local"
    """Loopback only; no relay, and no directory but those on loopback."""
    LAN: Final = "lan"
    """Listens on all interfaces; no relay, no directory."""
    INTERNET: Final = "internet"
    """Listens on all interfaces; relays and directories."""
    ALL: Final = (LOCAL, LAN, INTERNET)


Mode: TypeAlias = Literal["local", "lan", "internet"]

DEFAULT_RELAYS: Final = (
    "https://aps1-1.relay.n0.iroh.link./",
    "https://euc1-1.relay.n0.iroh.link./",
    "https://use1-1.relay.n0.iroh.link./",
    "https://usw1-1.relay.n0.iroh.link./",
)
"""Relays of mode ``internet``: n0's public ones, as ``RelayMode.default_mode()`` of iroh 1.2.0 has them."""
DEFAULT_DIRECTORIES: Final = ("https://dns.iroh.link/pkarr",)
"""Directories of mode ``internet``: n0's public pkarr relay server, ``N0_DNS_PKARR_RELAY_PROD`` in iroh's
``address_lookup/pkarr.rs``."""


class NetworkSection(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[network]``. ``None`` stands for the default of the mode, and an empty list for none."""

    mode: Mode = "internet"
    relays: tuple[str, ...] | None = None
    directories: tuple[str, ...] | None = None
    lan: bool = True

    @property
    def used_relays(self) -> tuple[str, ...]:
        """URLs of the relays that the daemon keeps a connection to one of."""
        return self._used(self.relays, DEFAULT_RELAYS)

    @property
    def used_directories(self) -> tuple[str, ...]:
        """URLs of the directories. ``/<z-base-32 key>`` is appended to each. Mode ``local`` has those on loopback."""
        if self.mode == NetworkMode.LOCAL:
            return tuple(filter(is_on_loopback, self.directories or ()))
        return self._used(self.directories, DEFAULT_DIRECTORIES)

    @property
    def uses_lan(self) -> bool:
        """True if the daemon finds peers on the LAN, and is found there."""
        return self.lan and self.mode != NetworkMode.LOCAL

    def _used(self, chosen: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
        if self.mode != NetworkMode.INTERNET:
            return ()
        return default if chosen is None else chosen


class LimitsSection(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[limits]``."""

    memory: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 2048
    """MiB of data that each identity's process may have; 0 for no limit."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = MAX_CLIENTS_PER_PROGRAM
    """Connections that one program may have to each process of the daemon."""
    sandbox: bool = True
    """Confine the daemon's processes to what they need, if the kernel can."""


class IdentitiesSection(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[identities]``."""

    idle: str = "off"
    """Idle time of new identities, as ``idle_time`` reads it."""


class MetricsSection(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[metrics]``."""

    address: str = ""
    """Address at which metrics are served, as ``metrics_address`` reads it; empty for none."""


class WorkerSection(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[worker]``."""

    listen: str = ""
    """Address at which workers on other machines connect, as ``worker_address`` reads it; empty for none."""


LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat: TypeAlias = Literal["text", "json"]


class LogSection(msgspec.Struct, frozen=True, kw_only=True):
    """Section ``[log]``."""

    level: LogLevel = "INFO"
    """Lowest level of the lines that the log files get."""
    format: LogFormat = "text"
    """Format of the lines in the log files."""


class DaemonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a daemon, every section."""

    network: NetworkSection = NetworkSection()
    limits: LimitsSection = LimitsSection()
    identities: IdentitiesSection = IdentitiesSection()
    metrics: MetricsSection = MetricsSection()
    worker: WorkerSection = WorkerSection()
    log: LogSection = LogSection()
