"""Messages of the vault's owner at the socket ``keys``: one request and one reply for each connection.

Each is one packet, a struct below as a msgpack array with its tag first. A passphrase is no part of a message: the
packet carries a descriptor (SCM_RIGHTS in unix(7)) from which the vault reads its first line. Times are Unix seconds.
Each request names the type of its reply as ``reply_type``. Any request can be answered by an ``ErrorReply`` instead.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from fastn_p2p_client.ipc.messages import Ack, ErrorReply, Message

MAX_PACKET: Final = 64 * 1024
"""Bytes of one packet."""
LONGEST_UNLOCK: Final = 365 * 24 * 3600
"""Seconds for which the vault can be unlocked, if the time is limited."""
MAX_SLOT_NAME: Final = 256
"""Characters of a slot's name in a request. Longer than a valid name may be, so that the reply can say why."""


class SlotKind(enum.StrEnum):
    """Kind of a slot, by the secret that opens it."""

    PASSPHRASE = "passphrase"  # noqa: S105
    """Any text that its owner remembers."""
    RECOVERY_CODE = "recovery-code"
    """Twelve random words on paper."""
    CREDENTIAL = "credential"
    """Random key that systemd gives to the daemon at its start."""
    KEYRING = "keyring"
    """Random key in the keyring of the desktop."""


KEY_KINDS: Final = (SlotKind.CREDENTIAL, SlotKind.KEYRING)
"""Kinds with a random key, which a machine keeps."""


class SlotInfo(Message, frozen=True):
    name: str
    kind: str
    created: str
    """UTC, ISO 8601."""


class VaultStatus(Message, frozen=True, tag=260):
    """State of the vault, after the request."""

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


class BackupOpened(Message, frozen=True, tag=270):
    """A backup was opened."""

    token: bytes = b""
    """Name of the opened backup; empty if it was not kept."""


class GetVaultStatus(Message, frozen=True, tag=240):
    """Get the state of the vault. No descriptor."""

    reply_type = VaultStatus


class SetPassphrase(Message, frozen=True, tag=241):
    """Set the passphrase, and encrypt the keys if they are not. The reply comes once it is on disk.

    The first descriptor has the new passphrase. The second has the secret of any slot, if the keys are encrypted. If it
    is a passphrase, the new one replaces that one.
    """

    reply_type = VaultStatus


class UnlockVault(Message, frozen=True, tag=242):
    """Unlock the vault with the secret of any slot, on the descriptor."""

    reply_type = VaultStatus
    seconds: Annotated[int, Meta(ge=0, le=LONGEST_UNLOCK)] = 0
    """Seconds after which the vault locks itself; 0 for never."""


class LockVault(Message, frozen=True, tag=243):
    """Lock the vault. No descriptor."""

    reply_type = VaultStatus


class AddSlot(Message, frozen=True, tag=247):
    """Add a slot. The reply comes once it is on disk. No key file changes.

    The first descriptor has the secret of the new slot, the second that of any slot which the vault has.
    """

    reply_type = VaultStatus
    kind: SlotKind
    name: Annotated[str, Meta(max_length=MAX_SLOT_NAME)] = ""
    """Name of the slot; empty for one that is free."""
    replace: bool = False
    """Replace the slots of this kind, instead of adding one."""


class RemoveSlot(Message, frozen=True, tag=248):
    """Remove a slot. The reply comes once it is on disk. No key file changes.

    The descriptor has the secret of another slot: so nobody removes the last one that can still be opened.
    """

    reply_type = VaultStatus
    name: Annotated[str, Meta(max_length=MAX_SLOT_NAME)]
    decrypt: bool = False
    """Remove it even if it is the last one. Then the keys are decrypted, and the descriptor has its own secret."""


class CheckSecret(Message, frozen=True, tag=249):
    """Check that the secret on the descriptor opens a slot. Nothing changes."""

    reply_type = VaultStatus


class CreateBackup(Message, frozen=True, tag=250):
    """Write a backup of keys, encrypted with a passphrase. The reply comes once it is on disk.

    The first descriptor has the passphrase, the second an archive of files without secrets, without an end
    (see ``backup.archive``). The third is the file to write.
    """

    reply_type = Ack
    identities: tuple[str, ...] = ()
    """Names; every identity if there are none."""


class OpenBackup(Message, frozen=True, tag=251):
    """Open a backup.

    The first descriptor has the passphrase, the second the backup. Its files without secrets are written to the third.
    """

    reply_type = BackupOpened
    keep: bool = False
    """Keep its keys for a while, for ``AdoptKeys``."""


OwnerRequest: TypeAlias = (
    GetVaultStatus
    | SetPassphrase
    | UnlockVault
    | LockVault
    | AddSlot
    | RemoveSlot
    | CheckSecret
    | CreateBackup
    | OpenBackup
)
OwnerReply: TypeAlias = VaultStatus | BackupOpened | Ack | ErrorReply
