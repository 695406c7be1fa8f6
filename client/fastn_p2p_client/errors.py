"""Errors of the API, as one tree.

``P2PError`` is an error of the system: it has a stable ``code``, and ``retryable`` is True when the same request can
succeed later. ``ApplicationError`` is an error that a handler raised on purpose. ``str()`` of each is one message for
people.

::

    P2PError                       an error of the system
    ├── UsageError                 the program passed or used something invalid
    │   ├── InvalidKey             not an ID52, or not a valid key
    │   ├── InvalidTicket          not a ticket, or a damaged one
    │   ├── InvitationNotRedeemed  an invitation in place of a peer, before it was redeemed
    │   ├── InvalidName            not a valid name of an identity, protocol, instance or peer
    │   ├── InvalidConfig          not a valid config of the protocol
    │   ├── BadRequest             the request does not have the type that the handler takes
    │   ├── BadReply               the reply does not have the type that the caller expects
    │   ├── BadMessage             bytes that are not a message of the protocol
    │   ├── InvalidPassphrase      an empty, too long or incomplete passphrase or key
    │   ├── SessionClosed          use of a session after this program closed or reset it
    │   ├── UsedElsewhere          use in another process or event loop; nothing was sent
    │   └── PayloadTooLarge        a request, reply or initial value above the limit
    ├── LocalError                 this machine's daemon cannot do it
    │   ├── DaemonNotRunning       no daemon runs for this home
    │   ├── DaemonAlreadyRunning   another daemon runs for this home
    │   ├── HomeUnusable           the home belongs to another user, or cannot be read or written
    │   ├── DaemonBusy             a process of the daemon does not answer; the supervisor restarts it
    │   ├── VersionMismatch        the daemon speaks another version of the local protocol
    │   ├── IdentityNotFound       no identity of this name
    │   ├── IdentityExists         an identity of this name exists
    │   ├── IdentityOffline        the calling identity is not online
    │   ├── IdentityFailed         the identity's process keeps crashing
    │   ├── IdentityAmbiguous      no identity was named, and several are online
    │   ├── NoIdentityOnline       no identity was named, and none is online
    │   ├── BindingExists          the identity has this protocol instance
    │   ├── BindingNotFound        the identity does not have this protocol instance
    │   ├── WorkspaceNotEmpty      removing the binding would delete its files
    │   ├── ProtocolNotInstalled   no protocol of this name is installed
    │   ├── PermissionsNeeded      the protocol needs permissions that the owner has not granted
    │   ├── PeerNameTaken          another peer has this petname
    │   ├── PeerNameUnknown        no peer has this petname
    │   ├── PeerBlocked            the owner has blocked the peer
    │   ├── GroupExists            a group of peers of this name exists
    │   ├── GroupNotFound          no group of peers of this name
    │   ├── InvitationNotFound     this daemon has made no such invitation
    │   ├── StorageFailed          a file could not be written
    │   ├── StorageDamaged         a file has other content than the daemon wrote
    │   ├── Forbidden              the sender may not make this request
    │   ├── VaultLocked            the keys are locked; the owner has to unlock the vault
    │   ├── VaultNotEncrypted      the keys of this home are not encrypted
    │   ├── WrongPassphrase        the passphrase does not open the vault
    │   ├── PassphraseDelayed      too many wrong passphrases; the next one has to wait
    │   ├── SlotExists             the vault has a slot of this name
    │   ├── SlotNotFound           the vault has no slot of this name
    │   ├── LastSlot               without this slot, nothing opens the vault
    │   ├── WrongBackupPassphrase  the passphrase does not open the backup
    │   ├── BackupUnusable         the file is no backup, is damaged, or of a newer version
    │   └── BackupConflict         the home has other identities, peers or groups of the same names or keys
    ├── RemoteError                the peer, its daemon, or the path to it
    │   ├── PeerUnknown            no address is known for the peer
    │   ├── PeerUnreachable        no connection to the peer's daemon
    │   ├── PeerOffline            the peer's daemon answers, and the identity is not online there
    │   ├── ProtocolNotFound       the peer does not offer the protocol
    │   ├── InstanceNotFound       the peer offers the protocol, but not this instance
    │   ├── CommandNotFound        the protocol does not have this command
    │   ├── Denied                 the access list does not admit the caller
    │   ├── InvitationRefused      the peer's daemon does not let in the bearer of the invitation
    │   ├── HandlerFailed          the handler raised another exception, or its process ended before it began
    │   └── OutcomeUnknown         another daemon of the peer got the retried call, and does not answer
    ├── CredentialError            a delegation or peer record that is not valid
    │   ├── BadSignature           the signature does not match
    │   ├── DelegationExpired      the delegation is too old
    │   ├── DelegationNotYetValid  the delegation starts later
    │   ├── WrongEndpoint          the delegation names another endpoint
    │   ├── EpochRetired           a newer epoch of the identity has been seen
    │   ├── RecordReplayed         a newer record of the identity has been seen
    │   └── IdentityRevoked        the identity was revoked with its own key
    ├── DeadlineExceeded           no reply in time; the request may have been executed
    ├── Overloaded                 a limit is reached
    ├── ConnectionLost             a process or connection ended with the call in flight; it may have been executed
    ├── StreamReset                the peer ended a session early, with a code
    └── InternalError              a defect of fastn-p2p

    ApplicationError               raised by the handler on purpose; not a P2PError
"""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, dataclass_transform

__all__ = [
    "CODES",
    "ApplicationError",
    "BackupConflict",
    "BackupUnusable",
    "BadMessage",
    "BadReply",
    "BadRequest",
    "BadSignature",
    "BindingExists",
    "BindingNotFound",
    "CommandNotFound",
    "ConnectionLost",
    "CredentialError",
    "DaemonAlreadyRunning",
    "DaemonBusy",
    "DaemonNotRunning",
    "DeadlineExceeded",
    "DelegationExpired",
    "DelegationNotYetValid",
    "Denied",
    "EpochRetired",
    "Forbidden",
    "GroupExists",
    "GroupNotFound",
    "HandlerFailed",
    "HomeUnusable",
    "IdentityAmbiguous",
    "IdentityExists",
    "IdentityFailed",
    "IdentityNotFound",
    "IdentityOffline",
    "IdentityRevoked",
    "InstanceNotFound",
    "InternalError",
    "InvalidConfig",
    "InvalidKey",
    "InvalidName",
    "InvalidPassphrase",
    "InvalidTicket",
    "InvitationNotFound",
    "InvitationNotRedeemed",
    "InvitationRefused",
    "LastSlot",
    "LocalError",
    "NoIdentityOnline",
    "OutcomeUnknown",
    "Overloaded",
    "P2PError",
    "PassphraseDelayed",
    "PayloadTooLarge",
    "PeerBlocked",
    "PeerNameTaken",
    "PeerNameUnknown",
    "PeerOffline",
    "PeerUnknown",
    "PeerUnreachable",
    "PermissionsNeeded",
    "ProtocolNotFound",
    "ProtocolNotInstalled",
    "RecordReplayed",
    "RemoteError",
    "SessionClosed",
    "SlotExists",
    "SlotNotFound",
    "StorageDamaged",
    "StorageFailed",
    "StreamReset",
    "UsageError",
    "UsedElsewhere",
    "VaultLocked",
    "VaultNotEncrypted",
    "VersionMismatch",
    "WorkspaceNotEmpty",
    "WrongBackupPassphrase",
    "WrongEndpoint",
    "WrongPassphrase",
    "error_from",
    "is_transient",
]

T = TypeVar("T")

CODES: Final[dict[str, type[P2PError]]] = {}
"""Class of each stable code. Both protocols send errors as code and fields."""


@dataclass_transform(eq_default=False, kw_only_default=True)
class P2PError(Exception):
    """An error of the system.

    Its fields are keyword arguments of the constructor and attributes; both protocols send them.

    Attributes:
        code: stable name of the error; it never changes between releases.
        retryable: True if the same request can succeed later without any change.
        transient: True if the restart of a process can cause this error; see ``is_transient``.
        detail: more about it, in words for people; empty if there is no more. Part of the text, and no field.
    """

    code: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    transient: ClassVar[bool] = False
    template: ClassVar[str] = "{code}"
    _names: ClassVar[tuple[str, ...]] = ()
    detail = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._names = (*cls._names, *inspect.get_annotations(cls))
        if cls.__dict__.get("code") and cls.__module__ == __name__:  # the codes of programs are their own
            CODES[cls.code] = cls

    if not TYPE_CHECKING:  # for type checkers a dataclass; real dataclasses would triple the load time of this module

        def __init__(self, **fields: Any) -> None:
            if fields.keys() != set(self._names):
                raise TypeError(f"{type(self).__name__} takes exactly {', '.join(self._names) or 'nothing'}")
            super().__init__()
            self.__dict__.update(fields)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the fields."""
        return cls._names

    def fields(self) -> dict[str, Any]:
        """Return the fields by name, as both protocols send them."""
        return {name: getattr(self, name) for name in self._names}

    def __str__(self) -> str:
        """Return one line that is safe to print, also if a peer chose parts of it. ``fields`` has the exact values."""
        from .plain_text import plain  # imported late: most programs load errors and never print one

        return plain(self.template.format(code=self.code, **self.fields()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (error_from, (self.code, self.fields(), self.detail))


class UsageError(P2PError):
    """The program passed or used something invalid."""


class LocalError(P2PError):
    """This machine's daemon cannot do it."""


class RemoteError(P2PError):
    """The peer, its daemon, or the path to it."""


class CredentialError(P2PError):
    """A delegation or peer record that is not valid."""


# ── usage ────────────────────────────────────────────────────────────────────────────────────────


class InvalidKey(UsageError):
    """The text is not an ID52, or its 32 bytes are not a valid key."""

    code = "invalid-key"
    template = "{text!r} is not a public key: {reason}. Copy the ID52 again: fastn-p2p identity list"
    text: str
    reason: str


class InvalidTicket(UsageError):
    """The text is not a ticket, or it is damaged."""

    code = "invalid-ticket"
    template = "not a valid ticket: {reason}. Ask the peer for a new one: fastn-p2p ticket NAME"
    reason: str


class InvitationNotRedeemed(UsageError):
    """The ticket of a peer is an invitation, which was not redeemed yet."""

    code = "invitation-not-redeemed"
    template = "this ticket is an invitation. Redeem it first: fastn-p2p peer add TICKET --name NAME"


class InvalidName(UsageError):
    """``name`` is not a valid name of ``what``: too long, or with characters that are not allowed."""

    code = "invalid-name"
    template = "{name!r} cannot be the name of {what}: {reason}"
    name: str
    what: str
    reason: str


class InvalidConfig(UsageError):
    """The config does not fit the protocol. ``reason`` names the field."""

    code = "invalid-config"
    template = "the config of {protocol} is not valid: {reason}"
    protocol: str
    reason: str


class BadRequest(UsageError):
    """The request does not have the type that the handler takes. ``reason`` names the field."""

    code = "bad-request"
    template = "the request does not fit {protocol}: {reason}"
    protocol: str
    reason: str


class BadReply(UsageError):
    """The reply does not have the type that the caller expects. ``reason`` names the field."""

    code = "bad-reply"
    template = "the reply of {protocol} is not of the expected type: {reason}"
    protocol: str
    reason: str


class BadMessage(UsageError):
    """The bytes are not a message of the protocol."""

    code = "bad-message"
    template = "not a message of this protocol: {reason}"
    reason: str


class InvalidPassphrase(UsageError):
    """The passphrase or key is empty, too long or incomplete."""

    code = "invalid-passphrase"
    template = "this passphrase cannot be used: {reason}. Give its first line with --passphrase-file, or type it"
    reason: str


class SessionClosed(UsageError):
    """``what`` was tried after this program closed or reset the session."""

    code = "session-closed"
    template = "{what} after this program closed the session"
    what: str


class UsedElsewhere(UsageError):
    """The object belongs to another process or event loop. Nothing was sent."""

    code = "used-elsewhere"
    template = "{what} cannot be used here: {reason}"
    what: str
    reason: str


class PayloadTooLarge(UsageError):
    """The payload has more bytes than the limit. Nothing was sent."""

    code = "payload-too-large"
    template = "the payload has {size} bytes, the limit is {limit}. Send large data through a stream"
    size: int
    limit: int


# ── this daemon ──────────────────────────────────────────────────────────────────────────────────


class DaemonNotRunning(LocalError):
    """No daemon runs for the home directory ``home``."""

    code = "daemon-not-running"
    retryable = True
    transient = True
    template = "no daemon is running for {home}. Start it: fastn-p2p daemon"
    home: str


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
    """No identity was named, and several are online."""

    code = "identity-ambiguous"
    template = "several identities are online: {online}. Name the one that makes the call: --as NAME"
    online: list[str]

    def __str__(self) -> str:
        online = ", ".join(self.online)
        return f"several identities are online: {online}. Name the one that makes the call: --as NAME"


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
        "If you trust it, run add-protocol or set-protocol with its config and --yes"
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


class Forbidden(LocalError):
    """The sender may not make this request."""

    code = "forbidden"
    template = "{role} may not ask for {request}"
    role: str
    request: str


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


# ── the peer ─────────────────────────────────────────────────────────────────────────────────────


class PeerUnknown(RemoteError):
    """No address is known for the peer."""

    code = "peer-unknown"
    retryable = True
    template = (
        "nothing is known about {peer}: the address book has no such name. An identity of this daemon has to be "
        "online. Ask for the peer's ID52 or ticket and add it: fastn-p2p peer add TICKET --name NAME"
    )
    peer: str

    def __str__(self) -> str:
        if len(self.peer) != 52:  # not an ID52
            return super().__str__()
        from .plain_text import plain

        asked = self.detail or "nor at the LAN and the directories, as far as the network mode uses them"
        return plain(
            f"nothing is known about {self.peer}: neither by the address book nor on this machine; {asked}. Is its "
            f"daemon running, and the identity online? Ask for its ticket, or see each step: "
            f"fastn-p2p explain {self.peer}"
        )


class PeerUnreachable(RemoteError):
    """No connection to the peer's daemon could be made."""

    code = "peer-unreachable"
    retryable = True
    template = "{peer} cannot be reached: {reason}. Is its daemon running? See each step: fastn-p2p explain {peer}"
    peer: str
    reason: str


class PeerOffline(RemoteError):
    """The peer's daemon answers, and the identity is not online there."""

    code = "peer-offline"
    retryable = True
    transient = True
    template = (
        "the daemon of {peer} answers, but the identity is not online there. Try again when it is. "
        "Its owner brings it online: fastn-p2p identity-online NAME"
    )
    peer: str


class ProtocolNotFound(RemoteError):
    """The peer does not offer the protocol to the caller."""

    code = "protocol-not-found"
    transient = True
    template = (
        "{peer} does not offer {protocol} to you. Its owner adds it: fastn-p2p add-protocol NAME --protocol {protocol}"
    )
    peer: str
    protocol: str


class InstanceNotFound(RemoteError):
    """The peer offers the protocol, but not this instance of it."""

    code = "instance-not-found"
    transient = True
    template = (
        "{peer} offers {protocol}, but has no instance {instance!r} of it for you. "
        "Its owner lists the instances: fastn-p2p status"
    )
    peer: str
    protocol: str
    instance: str


class CommandNotFound(RemoteError):
    """The protocol does not have this command."""

    code = "command-not-found"
    template = "{protocol} at {peer} has no command {command!r}"
    peer: str
    protocol: str
    command: str


class Denied(RemoteError):
    """The binding's access list does not admit the caller."""

    code = "denied"
    template = (
        "{peer} does not let you use {protocol} ({instance}). "
        "Its owner sees that you were refused, and can let you in: fastn-p2p peer accept YOUR-ID52"
    )
    peer: str
    protocol: str
    instance: str


_INVITATION_REFUSED: Final = {
    "expired": "it has expired",
    "used-up": "it was used as often as it may be",
    "revoked": "its owner has revoked it",
    "unknown": "the peer's daemon knows no such invitation",
    "unsupported": "the peer's daemon is older than invitations, and has to be updated",
}


class InvitationRefused(RemoteError):
    """The peer's daemon does not let in the bearer of an invitation."""

    code = "invitation-refused"
    template = "the invitation of {peer} is of no use: {why}. Ask its owner for a new one: fastn-p2p invite"
    peer: str
    reason: str
    """``expired``, ``used-up``, ``revoked``, ``unknown``, or ``unsupported``: the peer's daemon is an older one."""

    def __str__(self) -> str:
        from .plain_text import plain

        why = _INVITATION_REFUSED.get(self.reason, self.reason)
        return plain(self.template.format(peer=self.peer, why=why))


class OutcomeUnknown(RemoteError):
    """A daemon of the peer got a call with ``retry=True`` and does not answer any more. It may have been executed.

    Another daemon of the peer answers, and was not given the call: it does not know what the first one has executed.
    """

    code = "outcome-unknown"
    template = (
        "a daemon of {peer} got the call and does not answer any more. It may have been executed, so no other one was "
        "given it. Find out whether it was executed, and call again if not"
    )
    peer: str


class HandlerFailed(RemoteError):
    """The handler raised an exception other than ``ApplicationError``, or its process ended before it began."""

    code = "handler-failed"
    transient = True
    template = "the handler of {protocol} at {peer} failed: {reason}"
    peer: str
    protocol: str
    reason: str


# ── credentials ──────────────────────────────────────────────────────────────────────────────────


class BadSignature(CredentialError):
    """The signature of a delegation or peer record does not match."""

    code = "bad-signature"
    template = (
        "the signature on the {what} of {identity} is not valid. Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    what: str
    identity: str


class DelegationExpired(CredentialError):
    """A ticket or delegation is too old."""

    code = "delegation-expired"
    template = (
        "the ticket or delegation of {identity} expired on {when} ({seconds} s ago). Ask the peer for a new one: "
        "fastn-p2p ticket NAME. If it is new, check the clocks of both machines"
    )
    identity: str
    seconds: int
    """Seconds since it expired."""

    def __str__(self) -> str:
        at = max(0, min(time.time() - self.seconds, 2**36))  # the number may come from a peer
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
        return self.template.format(identity=self.identity, when=when, seconds=self.seconds)


class DelegationNotYetValid(CredentialError):
    """A delegation starts in ``seconds`` seconds."""

    code = "delegation-not-yet-valid"
    template = (
        "the delegation of {identity} starts in {seconds} s. Check the clocks of both machines: fastn-p2p netcheck"
    )
    identity: str
    seconds: int


class WrongEndpoint(CredentialError):
    """A delegation names another endpoint than the one that presents it."""

    code = "wrong-endpoint"
    template = (
        "the delegation of {identity} is for another endpoint than the one that presents it. "
        "Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    identity: str


class EpochRetired(CredentialError):
    """A delegation is of an older epoch than one that has been seen."""

    code = "epoch-retired"
    template = (
        "the delegation of {identity} has epoch {epoch}, which the newer epoch {newest} has replaced. "
        "Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    identity: str
    epoch: int
    newest: int


class RecordReplayed(CredentialError):
    """A peer record is older than one that has been seen."""

    code = "record-replayed"
    template = (
        "the record of {identity} has sequence {sequence}, and sequence {newest} is known already. "
        "Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    identity: str
    sequence: int
    newest: int


class IdentityRevoked(CredentialError):
    """The identity was revoked with its own key. Nothing makes it valid again."""

    code = "identity-revoked"
    template = "{identity} was revoked on {revoked}, {step}"
    identity: str
    """Petname or ID52 of a peer; name of an identity of this daemon."""
    revoked: str
    """Time in UTC, ISO 8601, as the revocation says."""
    successor: str
    """ID52 of the identity that takes its place; empty without one."""

    def __str__(self) -> str:
        from .plain_text import plain

        if not self.successor:
            step = "without a successor. Ask its owner for a new ID52"
        elif len(self.identity) == len(self.successor) and self.identity.isalnum():
            step = f"with the successor {self.successor}. If its owner confirms that, use the successor"
        else:
            accept = f"fastn-p2p peer accept-successor {self.identity}"
            step = f"with the successor {self.successor}. If it is a peer and its owner confirms that: {accept}"
        return plain(self.template.format(identity=self.identity, revoked=self.revoked, step=step))


# ── any hop ──────────────────────────────────────────────────────────────────────────────────────


class DeadlineExceeded(P2PError):
    """No reply within ``seconds``. The request may have been executed."""

    code = "deadline-exceeded"
    retryable = True
    template = "no reply within {seconds:g} s. It may have been executed"
    seconds: float


class Overloaded(P2PError):
    """A limit is reached. ``what`` says what is limited."""

    code = "overloaded"
    retryable = True
    template = "limit reached: {what} (limit {limit}). Try again more slowly"
    what: str
    limit: int


class ConnectionLost(P2PError):
    """A process or connection ended with the call in flight. The call may have been executed."""

    code = "connection-lost"
    retryable = False
    transient = True
    template = "{what} ended with a call or session in flight. A call may have been executed"
    what: str


class StreamReset(P2PError):
    """The peer ended a session early. ``reset_code`` is a code of the protocol, or one of ``limits``."""

    code = "stream-reset"
    transient = True
    template = "the peer ended the session early (code {reset_code}). The data that was sent or received is incomplete"
    reset_code: int


class InternalError(P2PError):
    """A defect of fastn-p2p."""

    code = "internal-error"
    template = "internal error: {reason}. Please report it"
    reason: str


def is_transient(error: P2PError, connected_before: bool) -> bool:
    """Return whether ``error`` passes once a process of a daemon has been restarted, so that a retry is worth it.

    Args:
        connected_before: the same callee has answered this program before. Until then only a broken connection is
            transient: the other errors mean a wrong name or address. Afterwards they are seen during a restart.
    """
    return error.transient and (connected_before or isinstance(error, ConnectionLost | DaemonBusy | StreamReset))


class ApplicationError(Exception):
    """An error that a handler raises on purpose; the caller's ``call`` or ``connect`` raises the same.

    Args:
        kind: the handler's name for the error, for instance ``"MessageTooLong"``.
        message: text for people; may be empty.
        payload: data of the error: a msgspec Struct, a dataclass or JSON-like values.

    Attributes:
        kind, message: as above.
        payload: the object that the handler gave. In the caller it is plain values; see ``payload_as``.
    """

    def __init__(self, kind: str, message: str, payload: Any = None) -> None:
        super().__init__(kind, message, payload)
        self.kind = kind
        self.message = message
        self.payload = payload

    def __str__(self) -> str:
        """Return text that is safe to print. ``kind`` and ``message`` have the exact values."""
        from .plain_text import plain_lines

        return plain_lines(f"{self.kind}: {self.message}" if self.message else self.kind)

    def payload_as(self, kind: type[T]) -> T:
        """Return the payload as a ``kind``, the type of which the handler gave an instance.

        Raises:
            BadReply: the payload is not a ``kind``; the error names the field.
        """
        from msgspec import ValidationError, convert  # imported late: most programs load errors and never see one

        if isinstance(self.payload, kind):
            return self.payload
        try:
            return convert(self.payload, kind)
        except ValidationError as error:
            raise BadReply(protocol=f"the error {self.kind}", reason=str(error)) from error


def error_from(code: str, fields: dict[str, Any], detail: str = "") -> P2PError:
    """Return the exception of a code. An unknown code, or fields of another type, give an ``InternalError``."""
    cls = CODES.get(code)
    if cls is None:
        return InternalError(reason=f"unknown error code {code[:64]!r}")
    try:
        error = cls(**fields)
        error.detail = detail
        str(error)  # a field of the wrong type must raise here, not where the error is printed
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return InternalError(reason=f"malformed error {code!r}")
    return error
