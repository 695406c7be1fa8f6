"""Specification of an actor process, and the settings of each actor.

The supervisor sends them over an inherited pipe, never on a command line or in the environment. Their keys are new at
each start of the daemon. They contain no secret of an identity.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fastn_p2p_client.limits import MAX_CLIENTS_PER_PROGRAM

from ..daemon_settings.sections import NetworkSection
from .separate_users import ProcessAccount


class ActorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Specification of one process. ``module`` has ``async def serve(context: ActorContext) -> None``."""

    name: str
    """``vault``, ``network``, ``gateway`` or ``identity-<name>``; also the name of its mailbox."""
    module: str
    home: str
    heartbeat: float
    """Seconds between two heartbeats."""
    settings: dict[str, Any] = {}
    """Settings struct of the actor, as builtins (keys stay bytes)."""
    previous_exit: str = ""
    """How the previous process ended, if it ended by its own fault: it exited, crashed or hung. Empty for the first
    process, and if another program killed the previous one."""
    previous_hung: bool = False
    """True if the previous process was killed because it sent no heartbeat."""
    connections: int = MAX_CLIENTS_PER_PROGRAM
    """Connections that one program may have to the actor's mailbox."""
    sandbox: bool = True
    """Confine the process, if the kernel can."""
    account: ProcessAccount | None = None
    """User that it takes; None to stay the user of the supervisor."""


class VaultAccess(msgspec.Struct, frozen=True, kw_only=True):
    """CURVE keys (Z85 text) with which one role connects to the vault."""

    server_public: str
    public: str
    secret: str


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True):
    server_public: str
    server_secret: str
    roles: dict[str, str]
    """Role by CURVE public key (Z85): ``gateway`` or ``network``."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    vault: VaultAccess
    grant_key: bytes
    network_mode: str
    started_ms: int
    """Start of the daemon in ``process_setup.boot_ms``."""
    version: str = ""
    memory: int = 0
    """Bytes of data that a one-shot worker may have; 0 for no limit."""
    identities: tuple[int, int] = (0, 0)
    """First and last user of identities; both 0 if they have the user of the gateway."""
    metrics: str = ""
    """Address at which metrics are served; empty for none."""
    idle: int = 0
    """Idle time of new identities in seconds; 0 for none."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    vault: VaultAccess
    grant_key: bytes
    network: NetworkSection = NetworkSection(mode="local")
    start: bytes = b""
    """8 random bytes, made at each start of the daemon."""
    started_ms: int = 0
    """Time in ``process_setup.boot_ms`` by which an earlier daemon of the home had ended."""
    worker_address: str = ""
    """Address at which workers on other machines connect; empty for none."""
    fixed: tuple[str, ...] = ()
    """Keys of settings whose value is from the command line or the environment, so ``config.toml`` cannot change
    it."""


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True):
    identity: str
    grant: bytes
    memory: int = 0
    """Bytes of data that the process may have; 0 for no limit."""
