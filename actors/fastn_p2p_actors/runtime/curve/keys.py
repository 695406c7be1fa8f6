"""CURVE keys of the roles that may connect to the vault, generated at each start of the daemon.

``zmq`` is imported inside the function, so that the supervisor starts fast. It generates the keys and passes them on.
This module creates no ZeroMQ context.
"""

from __future__ import annotations

import msgspec

from ..specs import VaultAccess, VaultSettings


class VaultKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the vault, and the keys of each role that may connect to it."""

    vault: VaultSettings
    gateway: VaultAccess
    network: VaultAccess


def generate_vault_keys() -> VaultKeys:
    """Generate keys for the vault and for its two roles."""
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
