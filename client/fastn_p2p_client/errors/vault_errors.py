"""Errors of the vault and of backups."""

from __future__ import annotations

from .p2p_error import LocalError


class VaultLocked(LocalError):
    """The keys are locked: nothing is created, deleted or signed until the owner unlocks the vault."""

    code = "vault-locked"
    retryable = True
    template = "the vault is locked, so {what} is not possible. Unlock it: fastn-p2p vault unlock"
    what: str


class VaultNotEncrypted(LocalError):
    """The keys of this home are not encrypted, so there is nothing to lock or unlock."""

    code = "vault-not-encrypted"
    template = "the keys of this home are not encrypted. Set a passphrase first: fastn-p2p vault set-passphrase"


class WrongPassphrase(LocalError):
    """The passphrase does not open the vault."""

    code = "wrong-passphrase"
    template = "this passphrase does not open the vault. Check it, and repeat the command"


class PassphraseDelayed(LocalError):
    """There were too many wrong passphrases in a row. Nothing was tried."""

    code = "passphrase-delayed"
    retryable = True
    template = "too many wrong passphrases: nothing was tried. Try again in {seconds} s"
    seconds: int


class SlotExists(LocalError):
    """The vault has a slot of this name."""

    code = "slot-exists"
    template = (
        "the vault has a slot named {slot}. Choose another name with --name, or remove that one: "
        "fastn-p2p vault remove-slot {slot}"
    )
    slot: str


class SlotNotFound(LocalError):
    """The vault has no slot of this name."""

    code = "slot-not-found"
    template = "the vault has no slot named {slot}. List the slots: fastn-p2p vault status"
    slot: str


class LastSlot(LocalError):
    """Without this slot, nothing opens the vault."""

    code = "last-slot"
    template = (
        "nothing but {slot} opens the vault. Add another slot first: fastn-p2p vault add-slot. To have the keys on "
        "disk in the clear again: fastn-p2p vault remove-slot {slot} --decrypt"
    )
    slot: str


class WrongBackupPassphrase(LocalError):
    """The passphrase does not open the backup."""

    code = "wrong-backup-passphrase"
    template = "this passphrase does not open the backup. Check it, and repeat the command"


class BackupUnusable(LocalError):
    """The file is no backup, is damaged, or was made by a newer version. Nothing was changed."""

    code = "backup-unusable"
    template = "{path} cannot be used: {reason}"
    path: str
    reason: str


class BackupConflict(LocalError):
    """The home has other identities, peers or groups of the same names, or the same keys under other names.

    Nothing was changed.
    """

    code = "backup-conflict"
    template = (
        "nothing was restored: {conflicts}. Restore under another name with --rename or --rename-peer OLD=NEW, or "
        "leave out what is in the way with --skip-existing"
    )
    conflicts: str
    """Names that are taken, in words."""
