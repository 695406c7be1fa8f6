"""Messages of the vault's owner at the socket ``keys``: one request and one reply for each connection.

Each is one packet, a struct below as a msgpack array with its tag first. A passphrase is no part of a message: the
packet carries a descriptor (SCM_RIGHTS in unix(7)) from which the vault reads it. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from fastn_p2p_client.ipc.messages import Ack, ErrorReply, Message

MAX_PACKET: Final = 64 * 1024
"""Bytes of one packet."""
LONGEST_UNLOCK: Final = 365 * 24 * 3600
"""Seconds for which the vault can be unlocked, if the time is limited."""


class GetVaultStatus(Message, frozen=True, tag=240):
    """Get the state of the vault. No descriptor. The reply is ``VaultStatus``."""


class SetPassphrase(Message, frozen=True, tag=241):
    """Set the passphrase, and encrypt the keys if they are not. The reply is ``Ack``, once it is on disk.

    The first descriptor has the new passphrase. The second has the present one, if there is one.
    """


class UnlockVault(Message, frozen=True, tag=242):
    """Unlock the vault with the passphrase on the descriptor. The reply is ``VaultStatus``."""

    seconds: Annotated[int, Meta(ge=0, le=LONGEST_UNLOCK)] = 0
    """Seconds after which the vault locks itself; 0 for never."""


class LockVault(Message, frozen=True, tag=243):
    """Lock the vault. No descriptor. The reply is ``VaultStatus``."""


class SlotInfo(Message, frozen=True):
    name: str
    kind: str
    created: str
    """UTC, ISO 8601."""


class VaultStatus(Message, frozen=True, tag=260):
    encrypted: bool
    locked: bool
    until: int
    """Time at which the vault locks itself; 0 for never."""
    slots: tuple[SlotInfo, ...]
    """Ways to unlock it."""
    wait: int = 0
    """Seconds until the next passphrase may be tried."""
    identities: int = 0
    """Keys of identities on disk."""


OwnerRequest: TypeAlias = GetVaultStatus | SetPassphrase | UnlockVault | LockVault
OwnerReply: TypeAlias = VaultStatus | Ack | ErrorReply
