"""What each actor is given when it is started, by the supervisor and nobody else.

Settings travel over an inherited pipe, never on a command line or in the environment. Keys in here are
made afresh for each start of the daemon; no identity's secret is ever among them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fastn_p2p_client.limits import MAX_CLIENTS_PER_PROGRAM

__all__ = [
    "ActorSpec",
    "GatewaySettings",
    "IdentitySettings",
    "NetworkMode",
    "NetworkSettings",
    "VaultAccess",
    "VaultSettings",
]


class NetworkMode:
    """How the endpoint reaches others."""

    LOCAL: Final = "local"
    """Loopback only, no relay, no discovery service."""
    INTERNET: Final = "internet"
    """iroh's public relays and discovery."""
    ALL: Final = (LOCAL, INTERNET)


class ActorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run: ``module`` has ``async def serve(stage: ActorContext) -> None``."""

    name: str
    """``vault``, ``network``, ``gateway`` or ``identity-<name>``; also the name of its mailbox."""
    module: str
    home: str
    heartbeat: float
    """Seconds between two signs of life."""
    settings: dict[str, Any] = {}
    """The actor's own settings struct, as builtins (keys stay bytes)."""
    previous_exit: str = ""
    """How the process before this one ended, if that was its own doing: it exited, crashed, or was silent. Empty for
    the first one, and where somebody else has killed it."""
    previous_hung: bool = False
    """Whether that was a silence."""
    connections: int = MAX_CLIENTS_PER_PROGRAM
    """Connections that one program may have to the actor's mailbox."""


class VaultAccess(msgspec.Struct, frozen=True, kw_only=True):
    """CURVE keys (Z85 text) with which one role reaches the vault."""

    server_public: str
    public: str
    secret: str


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True):
    server_public: str
    server_secret: str
    roles: dict[str, str]
    """CURVE public key (Z85) → role: ``gateway`` or ``network``."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    vault: VaultAccess
    grant_key: bytes
    network_mode: str
    started_ms: int
    """When the daemon was started: ``process.boot_ms``."""
    memory: int = 0
    """As in ``IdentitySettings``, for processes that run protocol code for a moment."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    vault: VaultAccess
    grant_key: bytes
    mode: str


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True):
    identity: str
    grant: bytes
    memory: int = 0
    """Bytes of data that the process may have; 0 for no limit."""
