"""Who may reach the vault: CURVE keys made afresh for each start of the daemon.

zmq is imported by the call, so that the supervisor, which makes the keys and hands them on, starts fast.
No ZeroMQ context is ever made here.
"""

from __future__ import annotations

import msgspec

from ..specs import (
    VaultAccess,
    VaultSettings,
)

__all__ = ["VaultKeys", "generate_vault_keys"]


class VaultKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What the vault is given, and each role that may speak to it."""

    vault: VaultSettings
    gateway: VaultAccess
    network: VaultAccess


def generate_vault_keys() -> VaultKeys:
    """Fresh keys for the vault and the two roles that it knows."""
    server_public, server_secret = _key_pair()
    access: dict[str, VaultAccess] = {}
    for role in ("gateway", "network"):
        public, secret = _key_pair()
        access[role] = VaultAccess(server_public=server_public, public=public, secret=secret)
    return VaultKeys(
        vault=VaultSettings(
            server_public=server_public,
            server_secret=server_secret,
            roles={held.public: role for role, held in access.items()},
        ),
        gateway=access["gateway"],
        network=access["network"],
    )


def _key_pair() -> tuple[str, str]:
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
