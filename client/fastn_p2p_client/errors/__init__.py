"""Errors of the API, as one tree.

``P2PError`` is an error of the system: it has a stable ``code``, and ``retryable`` is True when the same request can
succeed later. ``ApplicationError`` is an error that a handler raised on purpose. ``str()`` of each is one message for
people. The classes are in ``p2p_error``, ``usage``, ``local``, ``vault_errors``, ``remote``, ``credentials``,
``replica_errors``, ``any_hop`` and ``application``. All are imported from here.

::

    P2PError                       an error of the system
    ├── UsageError                 the program passed or used something invalid
    │   ├── InvalidKey             not an ID52, or not a valid key
    │   ├── InvalidTicket          not a ticket, or a damaged one
    │   ├── InvalidToken           not a worker's token, or a damaged one
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
    │   ├── NotForWorkers          no worker may serve the binding
    │   ├── TokenRefused           the daemon does not know the worker's token
    │   ├── WrongDaemon            another daemon than the one that has made the worker's token
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
    │   ├── StorageHeld            another process uses the database
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
    │   ├── BackupConflict         the home has other identities, peers or groups of the same names or keys
    │   ├── IdentityElsewhere      it needs the identity's key, which is at another daemon
    │   ├── OwnerAway              the owner has not renewed the delegation of this replica
    │   ├── OwnerReplaced          another daemon renews the replicas of the identity
    │   └── ReplicaNotFound        the identity has no replica of this name
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
    │   ├── HomeAway               the binding's home, another daemon of the peer, was not reached
    │   └── OutcomeUnknown         the daemon that got the retried call does not answer, or was restarted
    ├── CredentialError            a delegation or peer record that is not valid
    │   ├── BadSignature           the signature does not match
    │   ├── DelegationExpired      the delegation is too old
    │   ├── DelegationNotYetValid  the delegation starts later
    │   ├── WrongEndpoint          the delegation names another endpoint
    │   ├── EpochRetired           a newer epoch of the identity has been seen
    │   ├── RecordReplayed         a newer record of the identity has been seen
    │   ├── IdentityRevoked        the identity was revoked with its own key
    │   └── ReplicaRemoved         the daemon is no replica of the identity any more
    ├── DeadlineExceeded           no reply in time; the request may have been executed
    ├── Overloaded                 a limit is reached
    ├── StorageUnavailable         the callee's database cannot be used at the moment; nothing is confirmed
    ├── ConnectionLost             a process or connection ended with the call in flight; it may have been executed
    ├── StreamReset                the peer ended a session early, with a code
    └── InternalError              a defect of fastn-p2p

    ApplicationError               raised by the handler on purpose; not a P2PError
"""

from __future__ import annotations

from .any_hop import ConnectionLost, DeadlineExceeded, Overloaded, StorageUnavailable, StreamReset, is_transient
from .application import ApplicationError
from .credentials import (
    BadSignature,
    DelegationExpired,
    DelegationNotYetValid,
    EpochRetired,
    IdentityRevoked,
    RecordReplayed,
    WrongEndpoint,
)
from .local import (
    BindingExists,
    BindingNotFound,
    DaemonAlreadyRunning,
    DaemonBusy,
    DaemonNotRunning,
    Forbidden,
    GroupExists,
    GroupNotFound,
    HomeUnusable,
    IdentityAmbiguous,
    IdentityExists,
    IdentityFailed,
    IdentityNotFound,
    IdentityOffline,
    InvitationNotFound,
    NoIdentityOnline,
    NotForWorkers,
    PeerBlocked,
    PeerNameTaken,
    PeerNameUnknown,
    PermissionsNeeded,
    ProtocolNotInstalled,
    StorageDamaged,
    StorageFailed,
    StorageHeld,
    TokenRefused,
    VersionMismatch,
    WorkspaceNotEmpty,
    WrongDaemon,
)
from .p2p_error import CODES, CredentialError, InternalError, LocalError, P2PError, RemoteError, UsageError, error_from
from .remote import (
    CommandNotFound,
    Denied,
    HandlerFailed,
    InstanceNotFound,
    InvitationRefused,
    OutcomeUnknown,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
)
from .replica_errors import HomeAway, IdentityElsewhere, OwnerAway, OwnerReplaced, ReplicaNotFound, ReplicaRemoved
from .usage import (
    BadMessage,
    BadReply,
    BadRequest,
    InvalidConfig,
    InvalidKey,
    InvalidName,
    InvalidPassphrase,
    InvalidTicket,
    InvalidToken,
    InvitationNotRedeemed,
    PayloadTooLarge,
    SessionClosed,
    UsedElsewhere,
)
from .vault_errors import (
    BackupConflict,
    BackupUnusable,
    LastSlot,
    PassphraseDelayed,
    SlotExists,
    SlotNotFound,
    VaultLocked,
    VaultNotEncrypted,
    WrongBackupPassphrase,
    WrongPassphrase,
)

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
    "HomeAway",
    "HomeUnusable",
    "IdentityAmbiguous",
    "IdentityElsewhere",
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
    "InvalidToken",
    "InvitationNotFound",
    "InvitationNotRedeemed",
    "InvitationRefused",
    "LastSlot",
    "LocalError",
    "NoIdentityOnline",
    "NotForWorkers",
    "OutcomeUnknown",
    "Overloaded",
    "OwnerAway",
    "OwnerReplaced",
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
    "ReplicaNotFound",
    "ReplicaRemoved",
    "SessionClosed",
    "SlotExists",
    "SlotNotFound",
    "StorageDamaged",
    "StorageFailed",
    "StorageHeld",
    "StorageUnavailable",
    "StreamReset",
    "TokenRefused",
    "UsageError",
    "UsedElsewhere",
    "VaultLocked",
    "VaultNotEncrypted",
    "VersionMismatch",
    "WorkspaceNotEmpty",
    "WrongBackupPassphrase",
    "WrongDaemon",
    "WrongEndpoint",
    "WrongPassphrase",
    "error_from",
    "is_transient",
]

for _cls in (P2PError, ApplicationError):
    _cls.__module__ = __name__
