"""Messages of the gateway and the network process to the vault, and its replies: one reply to each message.

``access_policy`` says which role may send which message. A refusal is the local protocol's ``ErrorReply``. Each message
is the header of a mailbox message; payloads are empty. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from fastn_p2p_actors.credentials.delegation import LINEAGE_BYTES
from fastn_p2p_actors.credentials.envelope import UnixTime
from fastn_p2p_actors.credentials.invitation import MAX_RECORD_INSIDE, BindingNames, Secret, Uses
from fastn_p2p_actors.credentials.key_transfer import RECIPIENT_BYTES
from fastn_p2p_actors.credentials.owner_statement import MAX_OWNER_STATEMENT
from fastn_p2p_actors.credentials.peer_record import MAX_DELEGATIONS, EndpointEntry
from fastn_p2p_actors.credentials.pkarr import MAX_SEQUENCE
from fastn_p2p_client.ipc.messages import Ack, Cancel, ErrorReply, Message
from fastn_p2p_client.keys import KEY_BYTES
from fastn_p2p_client.limits import MAX_NAME

PAGE: Final = 256
"""Identities in one ``IdentityKeys``."""

MAX_BATCH: Final = 16
"""Requests in one ``SignBatch``. They take the vault some 5 ms, and their replies fit into a header."""

MAX_EVENT_FIELDS: Final = 16
"""Fields of one event, and texts in one of them."""

MAX_EVENT_TEXT: Final = 256
"""Characters of a text of an event."""

EventText = Annotated[str, Meta(max_length=MAX_EVENT_TEXT)]
EventValue: TypeAlias = EventText | int | bool | Annotated[list[EventText], Meta(max_length=MAX_EVENT_FIELDS)]

Name = Annotated[str, Meta(max_length=4 * MAX_NAME)]
"""Name of an identity. Longer than a valid name may be, so that the reply can say why it is invalid."""


# ── gateway → vault ──────────────────────────────────────────────────────────────────────────────


class CreateKey(Message, frozen=True, tag=200):
    """Create a key pair. The reply is ``IdentityKey``, once the key is on disk."""

    name: Name


class DeleteKey(Message, frozen=True, tag=201):
    """Delete the key for good. The reply is ``Ack``."""

    name: Name


class ListKeys(Message, frozen=True, tag=202):
    """List identities whose names come after ``after``, sorted by name. The reply is ``IdentityKeys``."""

    after: Name = ""


class GetLockState(Message, frozen=True, tag=208):
    """Get the state of the lock. The reply is ``LockState``."""


class RevokeKey(Message, frozen=True, tag=215):
    """Revoke the identity for good: from now on, the vault signs nothing else for it. The reply is ``RevokedKey``.

    An identity that is revoked already keeps its revocation, whatever successor the request names.
    """

    name: Name
    successor: Annotated[bytes, Meta(max_length=KEY_BYTES)] = b""
    """Public key of the identity that takes its place, 32 bytes; empty without one."""


class ListRevokedKeys(Message, frozen=True, tag=216):
    """List revoked identities whose names come after ``after``, sorted by name. The reply is ``RevokedKeys``."""

    after: Name = ""


class AdoptKeys(Message, frozen=True, tag=217):
    """Create keys of an opened backup, with their revocations. The reply is ``Ack``, once all of them are on disk.

    A key that is here already under the same name stays. If one cannot be created, none is.
    """

    token: bytes
    """From ``BackupOpened``."""
    names: Annotated[tuple[tuple[Name, Name], ...], Meta(max_length=PAGE)]
    """Name in the backup, and name from now on."""


class RotateTransportKey(Message, frozen=True, tag=214):
    """Replace the transport key by one of the next epoch, once it is on disk. The reply is ``EndpointKey``.

    The network process has the old one until its restart.
    """


class GetEndpoint(Message, frozen=True, tag=219):
    """Get the public part of the transport key. The reply is ``EndpointKey``."""


class EnrolReplica(Message, frozen=True, tag=213):
    """Sign delegations of the identity for another daemon's endpoint from now on. The reply is ``EnrolledReplicas``.

    An endpoint that is enrolled already stays as it is.
    """

    identity: Name
    endpoint: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    name: Name
    """Name of that daemon; a number is added if another one has it."""


class EndReplica(Message, frozen=True, tag=210):
    """Sign no more delegations for a replica. The reply is ``EnrolledReplicas``."""

    identity: Name
    replica: Annotated[str, Meta(max_length=4 * MAX_NAME)]
    """Name of the replica, or the id of its endpoint."""
    at_once: bool = False
    """Also retire its last delegation: see ``SignReplica``."""


class PromoteHome(Message, frozen=True, tag=229):
    """Make another daemon the home of a binding, with a higher term. The reply is ``EnrolledReplicas``."""

    identity: Name
    protocol: Name
    instance: Name
    replica: Annotated[str, Meta(max_length=4 * MAX_NAME)] = ""
    """Name of the replica, or the id of its endpoint; empty for the owner's daemon."""


class AdoptEnrolled(Message, frozen=True, tag=230):
    """Renew the replicas of an identity from now on, in place of another daemon. The reply is ``EnrolledReplicas``.

    The vault signs an ``OwnerStatement`` of a higher generation than any that it has seen. It may be repeated: a
    daemon that is the owner's already stays it, with the same statement.
    """

    identity: Name
    daemon: Annotated[str, Meta(max_length=MAX_NAME)]
    """Name of this daemon, for people."""
    without: Annotated[tuple[Annotated[str, Meta(max_length=4 * MAX_NAME)], ...], Meta(max_length=MAX_DELEGATIONS)] = ()
    """Names or endpoint ids of replicas to remove before, as ``EndReplica`` does at once."""


# ── network → vault ──────────────────────────────────────────────────────────────────────────────


class ClaimHome(Message, frozen=True, tag=228):
    """Make a daemon the home of a binding that has none. The reply is ``EnrolledReplicas``.

    A home that is there already stays as it is, and so does its term.
    """

    identity: Name
    protocol: Name
    instance: Name
    endpoint: Annotated[bytes, Meta(max_length=KEY_BYTES)] = b""
    """Endpoint of the replica; empty for the owner's daemon."""


class NoteOwner(Message, frozen=True, tag=231):
    """Keep an ``OwnerStatement`` that another daemon has shown, if it is the highest. The reply is
    ``EnrolledReplicas``.

    The vault verifies it. If it names another daemon, the vault signs nothing more for replicas.
    """

    identity: Name
    statement: Annotated[bytes, Meta(max_length=MAX_OWNER_STATEMENT)]


class SignReplica(Message, frozen=True, tag=211):
    """Let a replica that the gateway has enrolled speak for the identity from now. The reply is ``SignedDelegation``.

    For any other endpoint, the reply is ``ReplicaRemoved``.
    """

    identity: Name
    endpoint: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    retired: Annotated[bytes, Meta(max_length=LINEAGE_BYTES)] = b""
    """Lineage of an enrolment of this endpoint that was removed at once. The delegation is then for the vault's own
    endpoint, with this lineage and the next epoch: it retires the delegations of that enrolment."""


class GetTransport(Message, frozen=True, tag=203):
    """Get the transport key, once per start of the network process. The reply is ``TransportKey``."""

    recipient: Annotated[bytes, Meta(max_length=RECIPIENT_BYTES)] = b""
    """Public key of the sender's ``KeyReceiver``. Without it, the reply has no secret."""


class SignDelegation(Message, frozen=True, tag=204):
    """Let the vault's own transport key speak for the identity from now. The reply is ``SignedDelegation``."""

    identity: Name


class SignRecord(Message, frozen=True, tag=205):
    """Sign a peer record with a new delegation and a higher sequence than before. The reply is ``SignedRecord``.

    ``relays`` are URLs, ``addresses`` are ``ip:port``, both the most useful first, within the limits of a record.
    """

    identity: Name
    relays: tuple[str, ...]
    addresses: tuple[str, ...]
    others: tuple[EndpointEntry, ...] = ()
    """Entries of other endpoints of the same identity, copied from their records. Expired ones are left out."""


class SignPacket(SignRecord, frozen=True, tag=206):
    """Sign a peer record as for ``SignRecord``, and its packet for directories. The reply is ``SignedRecordPacket``.

    The vault builds the packet itself. It signs no bytes that it is given.
    """

    above: Annotated[int, Meta(ge=0, lt=MAX_SEQUENCE)] = 0
    """Sequence of the packet that a directory has. The new one gets a higher sequence, so that it replaces that one."""
    withdrawn: bool = False
    """Leave out this daemon's endpoint. If there are no ``others``, the packet has no record."""


class SignBatch(Message, frozen=True, tag=209):
    """Carry out several requests for a signature. The reply is ``SignedBatch``."""

    requests: Annotated[tuple[SignDelegation | SignRecord | SignPacket, ...], Meta(min_length=1, max_length=MAX_BATCH)]


class SignInvitation(Message, frozen=True, tag=218):
    """Sign an invitation of the identity. The reply is ``SignedInvitation``.

    The fields are those of ``credentials.invitation.Invitation``. The vault checks that the record is the identity's.
    """

    identity: Name
    expires: UnixTime
    uses: Uses
    bindings: BindingNames
    record: Annotated[bytes, Meta(max_length=MAX_RECORD_INSIDE)]
    secret: Secret

    def __repr__(self) -> str:
        return f"SignInvitation({self.identity!r}, {self.bindings}, expires={self.expires}, uses={self.uses})"


# ── gateway, network → vault ─────────────────────────────────────────────────────────────────────


class ListEnrolled(Message, frozen=True, tag=212):
    """List the replicas of an identity. The reply is ``EnrolledReplicas``."""

    identity: Name


class RecordEvent(Message, frozen=True, tag=207):
    """Write an event of the sender's role to the audit log. The vault adds time and role. The reply is ``Ack``."""

    event: Annotated[str, Meta(max_length=MAX_NAME)]
    fields: Annotated[dict[Annotated[str, Meta(max_length=MAX_NAME)], EventValue], Meta(max_length=MAX_EVENT_FIELDS)]


# ── vault → gateway, network ─────────────────────────────────────────────────────────────────────


class IdentityKey(Message, frozen=True, tag=220):
    name: str
    public: bytes
    """32 bytes."""
    created: str
    """UTC, ISO 8601."""


class IdentityKeys(Message, frozen=True, tag=221):
    """At most ``PAGE`` identities. If ``more``, ask again with ``after`` set to ``last``.

    ``damaged`` has one sentence for each identity of this page that cannot be used. It names the file and the reason.
    """

    identities: tuple[IdentityKey, ...]
    damaged: tuple[str, ...]
    more: bool
    last: str
    """Last name of this page, also if that identity is damaged."""


class TransportKey(Message, frozen=True, tag=222):
    """Transport key: the only secret that leaves the vault. It is no identity's, and a higher epoch replaces it."""

    secret: bytes
    """The Ed25519 seed of 32 bytes, sealed for the recipient of the request; empty without one."""
    public: bytes
    epoch: int
    lineage: bytes

    def __repr__(self) -> str:
        return f"TransportKey(public={self.public.hex()}, epoch={self.epoch})"


class SignedDelegation(Message, frozen=True, tag=223):
    blob: bytes
    not_after: int


class SignedRecord(Message, frozen=True, tag=224):
    blob: bytes
    expires: int


class SignedRecordPacket(Message, frozen=True, tag=225):
    record: bytes
    """The signed peer record; empty if the packet has none."""
    expires: int
    body: bytes
    """Signature, sequence and DNS message with the record, as directories take it."""


class SignedBatch(Message, frozen=True, tag=239):
    """Replies to the requests of a ``SignBatch``, in their order. One that was refused has its error."""

    replies: tuple[SignedDelegation | SignedRecord | SignedRecordPacket | ErrorReply, ...]


class EnrolledReplica(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Daemon for whose endpoint the vault signs, or has signed lately."""

    name: str
    endpoint: bytes
    lineage: bytes
    """Random name of this enrolment, in place of the lineage of that daemon's transport keys."""
    epoch: int
    """Epoch of its delegations; the next one retires them."""
    removed: int = 0
    """Unix time at which it was removed; 0 if it was not."""
    at_once: bool = False
    """True if its last delegation was retired, too."""


class HomeEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Home of a binding that keeps state."""

    protocol: str
    instance: str
    endpoint: bytes
    """Endpoint of the replica that is the home; empty for the owner's daemon."""
    term: int
    """Number of this choice, which is higher than that of every earlier one of the identity."""


class ReplicaOwner(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Daemon that renews the replicas of an identity."""

    statement: bytes
    """Highest ``OwnerStatement`` so far."""
    is_here: bool
    """True if it is this vault's own. Otherwise this vault signs nothing for replicas."""


class EnrolledReplicas(Message, frozen=True, tag=227):
    """Replicas of one identity, also removed ones whose last delegations may still be valid, and its homes."""

    replicas: tuple[EnrolledReplica, ...]
    homes: tuple[HomeEntry, ...] = ()
    owner: ReplicaOwner | None = None
    """None if this daemon has always been the owner's."""


class LockState(Message, frozen=True, tag=226):
    encrypted: bool
    """True if the keys on disk are sealed under a passphrase."""
    locked: bool
    """True if they cannot be used until the owner unlocks the vault."""
    until: int = 0
    """Time at which the vault locks itself; 0 for never."""
    epoch: int = 0
    """Epoch of the transport key; 0 if it was not read since the vault has started."""
    since: str = ""
    """Time at which that key was made: UTC, ISO 8601."""


class EndpointKey(Message, frozen=True, tag=237):
    """Public part of the transport key."""

    public: bytes
    epoch: int
    created: str
    """UTC, ISO 8601."""


class RevokedKey(Message, frozen=True, tag=235):
    name: str
    revocation: bytes
    """Signed revocation."""
    packet: bytes
    """Packet for directories with the revocation: no later packet replaces it."""


class RevokedKeys(Message, frozen=True, tag=236):
    """At most ``PAGE`` revoked identities. ``damaged`` and ``more`` are those of ``IdentityKeys``."""

    keys: tuple[RevokedKey, ...]
    damaged: tuple[str, ...]
    more: bool
    last: str
    """Last name of this page."""


class SignedInvitation(Message, frozen=True, tag=238):
    blob: bytes

    def __repr__(self) -> str:
        return "SignedInvitation(…)"


VaultRequest: TypeAlias = (
    CreateKey
    | DeleteKey
    | ListKeys
    | GetLockState
    | RevokeKey
    | ListRevokedKeys
    | AdoptKeys
    | RotateTransportKey
    | GetEndpoint
    | EnrolReplica
    | EndReplica
    | PromoteHome
    | AdoptEnrolled
    | ClaimHome
    | NoteOwner
    | ListEnrolled
    | SignReplica
    | GetTransport
    | SignDelegation
    | SignRecord
    | SignPacket
    | SignBatch
    | SignInvitation
    | RecordEvent
    | Cancel
)
"""Every message to the vault's mailbox. ``Cancel`` has no reply and no effect, because every request is short."""

VaultReply: TypeAlias = (
    IdentityKey
    | IdentityKeys
    | RevokedKey
    | RevokedKeys
    | EndpointKey
    | TransportKey
    | SignedDelegation
    | SignedRecord
    | SignedRecordPacket
    | SignedBatch
    | SignedInvitation
    | EnrolledReplicas
    | LockState
    | Ack
    | ErrorReply
)
"""Every reply of the vault."""
