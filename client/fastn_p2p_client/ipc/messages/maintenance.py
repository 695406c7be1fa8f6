"""Control messages that change the daemon as a whole: its settings, a restore, and its transport key."""

from __future__ import annotations

import msgspec

from .base import Message
from .identities import IdentityInfo

__all__ = [
    "ReloadSettings",
    "RestoreBackup",
    "RestoreReply",
    "RotateTransport",
    "SettingsReply",
    "TransportReply",
]


class SettingsReply(Message, frozen=True, tag=53):
    """The daemon has read its settings again."""

    fixed: tuple[str, ...] = ()
    """Keys that the file cannot change, because the daemon was started with an option or an environment variable."""
    log_level: str = ""
    """Level of the log lines from the file, in the reply of the network process; empty if something else sets it."""


class RestoreReply(Message, frozen=True, tag=123):
    """Outcome of a restore."""

    identities: list[IdentityInfo]
    """Identities that were restored."""
    skipped: list[str]
    """Names in the backup of identities that are here already, or were left out."""
    peers: int
    """Peers that were restored, or that got records."""
    problems: tuple[str, ...] = ()
    """Parts of the backup that were left out, and why."""
    permissions: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Permissions of restored bindings outside of their workspaces, by ``IDENTITY/PROTOCOL/INSTANCE``."""
    replicas: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Names of the replicas of restored identities, by name of the identity. Another daemon renews them."""
    owners: dict[str, str] = msgspec.field(default_factory=dict)
    """Name of that daemon, by name of the identity."""


class TransportReply(Message, frozen=True, tag=125):
    """Transport key in use."""

    endpoint: str
    """Public key of the endpoint, in hexadecimal as in ``Status``."""
    epoch: int
    """Number of the key: 1 for the first one of this home."""
    since: str
    """Time at which it was made: UTC, ISO 8601."""


class ReloadSettings(Message, frozen=True, tag=37):
    """Read ``config.toml`` in the home again. Its relays and directories take effect at once.

    An invalid file is answered by the error ``storage-damaged``, and changes nothing.
    """

    reply_type = SettingsReply


class RestoreBackup(Message, frozen=True, tag=122):
    """Restore a backup that the vault has opened. The payload has its files without secrets.

    All of it is restored or nothing, also after a crash. An interrupted request can be repeated.
    """

    reply_type = RestoreReply
    token: bytes
    """Name of the opened backup, from the vault."""
    identities: tuple[str, ...] = ()
    """Names in the backup; every identity if there are none."""
    renames: tuple[tuple[str, str], ...] = ()
    """Identities that get another name: the one in the backup, and the new one."""
    peer_renames: tuple[tuple[str, str], ...] = ()
    """The same for peers. Access lists follow."""
    skip_identities: bool = False
    """Leave out identities that are in conflict with those here, instead of restoring nothing."""
    skip_peers: bool = False
    """The same for peers and groups."""
    protocols: bool = True
    """Restore bindings, with configs, access lists and permissions."""
    peers: bool = True
    """Restore the address book, groups, blocked and revoked peers, and with ``protocols`` what invitations gave."""
    offline: bool = False
    """Keep the identities offline. Otherwise those are brought online that were online."""


class RotateTransport(Message, frozen=True, tag=124):
    """Replace the transport key by a new one, with the next epoch. Connections move to the new endpoint."""

    reply_type = TransportReply
