"""Errors of this machine's daemon: its processes, identities, bindings, address book and files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .p2p_error import LocalError

_MOST_NAMED: Final = 16
"""Identities that ``IdentityAmbiguous`` names in its text: there may be thousands."""


class DaemonNotRunning(LocalError):
    """No daemon runs for the home directory ``home``."""

    code = "daemon-not-running"
    retryable = True
    transient = True
    template = "no daemon is running for {home}. Start it: fastn-p2p daemon"
    home: str


class NotForWorkers(LocalError):
    """No worker may serve the binding: the daemon serves it by itself, or does not listen for workers."""

    code = "not-for-workers"
    template = "workers on other machines cannot serve {protocol} ({instance}) of {identity}: {reason}"
    identity: str
    protocol: str
    instance: str
    reason: str


class TokenRefused(LocalError):
    """The daemon does not know the token of a worker, because its owner has revoked it or removed the protocol."""

    code = "token-refused"
    template = (
        "the daemon does not accept the token for {protocol} ({instance}) of {identity} any more. Its owner makes a "
        "new one: fastn-p2p worker-token {identity} --protocol {protocol} --instance {instance}"
    )
    identity: str
    protocol: str
    instance: str


class WrongDaemon(LocalError):
    """Another daemon answers than the one that has made the token of a worker."""

    code = "wrong-daemon"
    template = (
        "another daemon answers at {address} than the one that has made this token, or it has a new certificate. "
        "Check the address, or have its owner make a new token"
    )
    address: str


class DaemonAlreadyRunning(LocalError):
    """A daemon runs for the home directory ``home`` already."""

    code = "daemon-already-running"
    template = "a daemon is already running for {home} (pid {pid}). Stop it first, or use another --home"
    home: str
    pid: int


class HomeUnusable(LocalError):
    """The home belongs to another user, or cannot be read or written."""

    code = "home-unusable"
    template = "{path} cannot be used by the daemon: {reason}"
    path: str
    reason: str


class DaemonBusy(LocalError):
    """A process of the daemon does not answer. The supervisor restarts it."""

    code = "daemon-busy"
    retryable = True
    transient = True
    template = "the daemon's {actor} process does not answer and is being restarted. Try again. See: fastn-p2p status"
    actor: str


class VersionMismatch(LocalError):
    """The daemon speaks another version of the local protocol."""

    code = "version-mismatch"
    template = "this program speaks protocol version {ours}, the daemon speaks {theirs}. Upgrade the older of the two"
    ours: int
    theirs: int


class IdentityNotFound(LocalError):
    """The daemon has no identity of this name."""

    code = "identity-not-found"
    template = (
        "there is no identity {identity!r} here. List them: fastn-p2p identity list. "
        "Create it: fastn-p2p create-identity {identity}"
    )
    identity: str


class IdentityExists(LocalError):
    """The daemon has an identity of this name already."""

    code = "identity-exists"
    template = "an identity {identity!r} already exists. Choose another name"
    identity: str


class IdentityOffline(LocalError):
    """The calling identity is not online."""

    code = "identity-offline"
    transient = True
    template = "the identity {identity!r} is not online. Bring it online: fastn-p2p identity-online {identity}"
    identity: str


class IdentityFailed(LocalError):
    """The identity's process keeps crashing."""

    code = "identity-failed"
    template = "the process of identity {identity!r} keeps crashing: {reason}. See fastn-p2p status and the log"
    identity: str
    reason: str


class IdentityAmbiguous(LocalError):
    """No identity was named, and several are online. ``online`` has the first of them by name, at most 17."""

    code = "identity-ambiguous"
    template = "several identities are online: {online}. Name one of them: --as NAME"
    online: list[str]

    @classmethod
    def among(cls, names: Iterable[str]) -> IdentityAmbiguous:
        """Return the error for these identities, of which it has the first by name."""
        return cls(online=sorted(names)[: _MOST_NAMED + 1])

    def __str__(self) -> str:
        more = " and more" if len(self.online) > _MOST_NAMED else ""
        online = ", ".join(self.online[:_MOST_NAMED]) + more
        return f"several identities are online: {online}. Name one of them: --as NAME"


class NoIdentityOnline(LocalError):
    """No identity was named, and none is online."""

    code = "no-identity-online"
    transient = True
    template = "no identity is online here. Bring one online: fastn-p2p identity-online NAME"


class BindingExists(LocalError):
    """The identity has this protocol instance already."""

    code = "binding-exists"
    template = (
        "{identity!r} already has {protocol} as {instance!r}. Choose another --instance, or remove that one first"
    )
    identity: str
    protocol: str
    instance: str


class BindingNotFound(LocalError):
    """The identity does not have this protocol instance."""

    code = "binding-not-found"
    template = "{identity!r} has no {protocol} as {instance!r}. List what it has: fastn-p2p status"
    identity: str
    protocol: str
    instance: str


class WorkspaceNotEmpty(LocalError):
    """Removing the binding would delete files. ``holds`` says how many."""

    code = "workspace-not-empty"
    template = (
        "{protocol} ({instance}) of {identity} holds {holds}. Nothing was changed. "
        "Use --yes to delete that, or --keep-data to keep it until the protocol is added again"
    )
    identity: str
    protocol: str
    instance: str
    holds: str


class ProtocolNotInstalled(LocalError):
    """No protocol of this name is installed where the daemon runs."""

    code = "protocol-not-installed"
    template = "no protocol {protocol!r} is installed here (installed: {installed})"
    protocol: str
    installed: list[str]

    def __str__(self) -> str:
        installed = ", ".join(self.installed) or "none"
        return (
            f"no protocol {self.protocol!r} is installed here (installed: {installed}). Install its package where the "
            "daemon runs, and try again"
        )


class PermissionsNeeded(LocalError):
    """The protocol needs permissions that the owner has not granted. ``permissions`` has one on each line."""

    code = "permissions-needed"
    template = (
        "{protocol} needs permissions that were not granted: {permissions}. "
        "If you trust it, grant them with --yes: fastn-p2p set-protocol IDENTITY --protocol {protocol} --yes"
    )
    protocol: str
    permissions: str

    def __str__(self) -> str:
        return super().__str__().replace("\\n", "; ")


class PeerNameTaken(LocalError):
    """Another peer has this petname."""

    code = "peer-name-taken"
    template = (
        "the address book has another peer named {name!r}. "
        "Choose another name, or remove that one first: fastn-p2p peer remove {name}"
    )
    name: str


class PeerNameUnknown(LocalError):
    """No peer has this petname."""

    code = "peer-name-unknown"
    template = "the address book has no peer named {name!r}. List them: fastn-p2p peer list"
    name: str


class PeerBlocked(LocalError):
    """The owner has blocked the peer. Nothing was sent to it."""

    code = "peer-blocked"
    template = "{peer} is blocked. Unblock it first: fastn-p2p peer unblock {peer}"
    peer: str


class GroupExists(LocalError):
    """A group of peers of this name exists."""

    code = "group-exists"
    template = "there is a group named {group!r} already. Add peers to it: fastn-p2p peer group add {group} PEER"
    group: str


class GroupNotFound(LocalError):
    """No group of peers has this name."""

    code = "group-not-found"
    template = "there is no group named {group!r}. Create it: fastn-p2p peer group create {group}"
    group: str


class InvitationNotFound(LocalError):
    """This daemon has made no invitation with this id, or the id begins several."""

    code = "invitation-not-found"
    template = "there is no invitation {invitation!r}. List them: fastn-p2p invite list"
    invitation: str


class StorageFailed(LocalError):
    """A file could not be written. The daemon has changed nothing."""

    code = "storage-failed"
    template = "cannot write {path}: {reason}. Nothing was changed"
    path: str
    reason: str


class StorageDamaged(LocalError):
    """A file has other content than the daemon wrote."""

    code = "storage-damaged"
    template = "{path} cannot be used: {reason}. Restore a copy of it, or remove it"
    path: str
    reason: str


class StorageHeld(LocalError):
    """Another process uses the database: another daemon with the same identity, for example from a backup."""

    code = "storage-held"
    retryable = True
    template = "{store} is in use: {holder} holds it. Stop that one, or take this identity offline"
    store: str
    holder: str


class Forbidden(LocalError):
    """The sender may not make this request."""

    code = "forbidden"
    template = "{role} may not send {request}"
    role: str
    request: str
