"""Replies of the vault: checks requests, and signs delegations and records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from fastn_p2p_actors.credentials import SPEAK, Delegation, check_reachability, pkarr, read_revocation
from fastn_p2p_actors.credentials.delegation import DELEGATION_VERSION
from fastn_p2p_actors.credentials.invitation import build_invitation
from fastn_p2p_actors.credentials.key_transfer import RECIPIENT_BYTES, seal_key
from fastn_p2p_actors.credentials.peer_record import MAX_DELEGATIONS, EndpointEntry, build_record, check_entry
from fastn_p2p_actors.credentials.record_packet import encode_record_packet
from fastn_p2p_actors.credentials.signed_revocation import build_revocation
from fastn_p2p_client.errors import BackupUnusable, HomeUnusable, InternalError, P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import Ack, ErrorReply

from .access_policy import VaultState, check_allowed
from .audit_events import Record, record_reply
from .backups import Backups
from .key_codec import StoredKey
from .key_lock import KeyLock
from .key_store import KeyStore
from .last_replies import LastReplies, Signed
from .messages import (
    PAGE,
    AdoptEnrolled,
    AdoptKeys,
    ClaimHome,
    CreateKey,
    DeleteKey,
    EndpointKey,
    EndReplica,
    EnrolledReplicas,
    EnrolReplica,
    GetEndpoint,
    GetLockState,
    GetTransport,
    IdentityKey,
    IdentityKeys,
    ListEnrolled,
    ListKeys,
    ListRevokedKeys,
    LockState,
    NoteOwner,
    PromoteHome,
    RecordEvent,
    RevokedKey,
    RevokedKeys,
    RevokeKey,
    RotateTransportKey,
    SignBatch,
    SignDelegation,
    SignedBatch,
    SignedDelegation,
    SignedInvitation,
    SignedRecord,
    SignedRecordPacket,
    SignInvitation,
    SignPacket,
    SignRecord,
    SignReplica,
    TransportKey,
    VaultReply,
    VaultRequest,
)
from .revocation_files import SavedRevocation
from .signatures import sign_body, sign_owner_statement

DELEGATION_SECONDS: Final = 24 * 3600
"""Seconds for which a delegation is valid."""
RECORD_SECONDS: Final = 24 * 3600
"""Seconds for which a peer record is valid."""

log = logging.getLogger(__name__)


class Vault:
    """Handles one request at a time. It builds everything that it signs itself, from checked parts.

    Args:
        store: the open key store.
        clock: return Unix time in seconds.
        record: ``AuditLog.record``.
        lock: the lock of the store; None if it can never be locked.
        backups: opened backups; None if there can be none.
    """

    def __init__(
        self,
        store: KeyStore,
        clock: Callable[[], float],
        record: Record = lambda _actor, _event, _fields: None,
        lock: KeyLock | None = None,
        backups: Backups | None = None,
    ) -> None:
        self._record = record
        self._store = store
        self._clock = clock
        self._lock = lock
        self._backups = backups
        self._sequences: dict[str, int] = {}
        self._last = LastReplies(clock)

    @property
    def state(self) -> VaultState:
        return VaultState.LOCKED if self._store.is_locked else VaultState.OPEN

    def answer(self, role: str, request: VaultRequest) -> VaultReply | None:
        """Return the reply to ``role``, or None if there is none.

        Raises:
            Forbidden: the role may not send this request; checked first.
            P2PError: the request failed.
        """
        state = self.state
        check_allowed(role, state, request)
        if self._lock is not None:
            self._lock.check_ready()
        if isinstance(request, SignBatch):
            return SignedBatch(tuple(self._reply_in_batch(role, each) for each in request.requests))
        if isinstance(request, SignDelegation | SignRecord):
            return self._reply_signed(role, request)
        reply = self._carry_out(role, request)
        record_reply(self._record, role, request, reply)
        return reply

    def _reply_in_batch(self, role: str, request: SignDelegation | SignRecord) -> Signed | ErrorReply:
        """Return the reply to one request of a batch. No other one fails with it."""
        try:
            check_allowed(role, self.state, request)
            return self._reply_signed(role, request)
        except P2PError as error:
            level = logging.DEBUG if isinstance(error, VaultLocked) else logging.WARNING
            log.log(level, "%s for %s: %s", type(request).__name__, role, error)
            return ErrorReply.of(error)
        except Exception as error:
            log.exception("%s for %s", type(request).__name__, role)
            return ErrorReply.of(InternalError(reason=f"{type(error).__name__} in the vault"))

    def _reply_signed(self, role: str, request: SignDelegation | SignRecord) -> Signed:
        if self._store.is_locked:
            return self._last.find(request)
        signed = self._sign(request)
        self._last.note(request, signed)
        record_reply(self._record, role, request, signed)
        return signed

    def _sign(self, request: SignDelegation | SignRecord) -> Signed:
        key = self._signing_key(request.identity)
        if isinstance(request, SignPacket):
            return self._sign_packet(key, request)
        return self._sign_record(key, request) if isinstance(request, SignRecord) else self._sign_delegation(key)

    def _carry_out(self, role: str, request: VaultRequest) -> VaultReply | None:
        match request:
            case GetTransport(recipient):
                return self._transport(recipient)
            case ListKeys(after):
                return self._list(after)
            case RevokeKey(name, successor):
                return self._revoke(name, successor)
            case ListRevokedKeys(after):
                return self._list_revoked(after)
            case SignInvitation():
                return self._sign_invitation(request)
            case EnrolReplica(name):
                self._signing_key(name)
                return self._store.replicas.enrol(request, self._now())
            case EndReplica(name):
                return self._store.replicas.end(request, self._now())
            case PromoteHome():
                return self._store.replicas.promote(request, self._now())
            case AdoptEnrolled():
                return self._adopt_replicas(request)
            case NoteOwner(name, statement):
                public = self._store.public_of(name)
                return self._store.replicas.note_owner(name, statement, public, self._now())
            case ClaimHome():
                return self._store.replicas.claim(request, self._now())
            case ListEnrolled(name):
                return self._store.replicas.find(name, self._now())
            case SignReplica():
                return self._sign_replica(request)
            case CreateKey(name):
                return _public_part(self._store.create(name))
            case AdoptKeys():
                return self._adopt(request)
            case RotateTransportKey():
                return self._rotate()
            case GetEndpoint():
                return _endpoint(self._store.transport)
            case DeleteKey(name):
                self._store.delete(name)
                self._sequences.pop(name, None)
                self._last.forget(name)
                return Ack()
            case GetLockState():
                return self._lock_state()
            case RecordEvent(event, fields):
                self._record(role, event, fields)
                return Ack()
        return None

    def _lock_state(self) -> LockState:
        state = LockState(False, False) if self._lock is None else self._lock.lock_state()
        try:
            key = self._store.transport
        except VaultLocked:
            return state
        return msgspec.structs.replace(state, epoch=key.header.epoch, since=key.header.created)

    def _now(self) -> float:
        """Return Unix time, at least 0: signed data has no times before 1970."""
        return max(0.0, self._clock())

    def _transport(self, recipient: bytes) -> TransportKey:
        key = self._store.transport
        sealed = seal_key(key.pair.seed_pointer, recipient) if len(recipient) == RECIPIENT_BYTES else b""
        return TransportKey(sealed, key.pair.public, key.header.epoch, self._store.lineage)

    def _list(self, after: str) -> IdentityKeys:
        page = self._store.page(after, PAGE)
        return IdentityKeys(tuple(map(_public_part, page.keys)), tuple(map(str, page.damaged)), page.more, page.last)

    def _revoke(self, name: str, successor: bytes) -> RevokedKey:
        saved = self._store.revocations.find(name)
        if saved is None:
            key = self._store.find(name)
            blob = sign_body(key, "revocation", build_revocation(key.pair.public, self._now(), successor))
            packet = encode_record_packet(key.pair.public, blob)
            signature = key.pair.sign(pkarr.signing_input(pkarr.MAX_SEQUENCE, packet))
            body = pkarr.join_body(signature, pkarr.MAX_SEQUENCE, packet)
            saved = SavedRevocation(revocation=blob, packet=body)
            self._store.revocations.write(name, saved)
            self._last.forget(name)
        return RevokedKey(name, saved.revocation, saved.packet)

    def _adopt(self, request: AdoptKeys) -> Ack:
        if self._backups is None:
            raise BackupUnusable(path="the backup", reason="it is not open any more. Repeat the command")
        return self._backups.adopt(request)

    def _rotate(self) -> EndpointKey:
        self._last.forget_all()
        return _endpoint(self._store.rotate_transport())

    def _list_revoked(self, after: str) -> RevokedKeys:
        names = [name for name in self._store.revocations.names() if name > after]
        keys: list[RevokedKey] = []
        damaged: list[str] = []
        for name in names[:PAGE]:
            try:
                saved = self._store.revocations.find(name)
            except HomeUnusable as error:
                damaged.append(str(error))
            else:
                if saved is not None:
                    keys.append(RevokedKey(name, saved.revocation, saved.packet))
        return RevokedKeys(tuple(keys), tuple(damaged), len(names) > PAGE, names[:PAGE][-1] if names else after)

    def _signing_key(self, name: str) -> StoredKey:
        """Return the key of an identity that is not revoked. Raises IdentityRevoked, and the errors of ``find``."""
        key = self._store.find(name)
        saved = self._store.revocations.find(name)
        if saved is not None:
            raise read_revocation(saved.revocation).error(name)
        return key

    def _sign_delegation(self, key: StoredKey) -> SignedDelegation:
        transport = self._store.transport
        now = int(self._now())
        delegation = Delegation(
            DELEGATION_VERSION,
            key.pair.public,
            transport.pair.public,
            self._store.lineage,
            transport.header.epoch,
            now,
            now + DELEGATION_SECONDS,
            (SPEAK,),
        )
        return SignedDelegation(sign_body(key, "delegation", delegation), delegation.not_after)

    def _sign_replica(self, request: SignReplica) -> SignedDelegation:
        key = self._signing_key(request.identity)
        own = self._store.transport.pair.public
        delegation = self._store.replicas.delegation_of(
            request, key.pair.public, own, int(self._now()), DELEGATION_SECONDS
        )
        return SignedDelegation(sign_body(key, "delegation", delegation), delegation.not_after)

    def _adopt_replicas(self, request: AdoptEnrolled) -> EnrolledReplicas:
        key, transport, now = self._signing_key(request.identity), self._store.transport, self._now()

        def sign(generation: int, term: int) -> bytes:
            return sign_owner_statement(key, transport, self._store.lineage, generation, term, now, request.daemon)

        return self._store.replicas.adopt(request, now, sign)

    def _sign_invitation(self, request: SignInvitation) -> SignedInvitation:
        key = self._signing_key(request.identity)
        invitation = build_invitation(
            key.pair.public,
            self._now(),
            request.expires,
            request.uses,
            request.bindings,
            request.record,
            request.secret,
        )
        return SignedInvitation(sign_body(key, "invitation", invitation))

    def _sign_packet(self, key: StoredKey, request: SignPacket) -> SignedRecordPacket:
        record = self._sign_record(key, request, is_withdrawal=request.withdrawn)
        sequence = max(1000 * self._sequences[key.header.name], request.above + 1)
        packet = encode_record_packet(key.pair.public, record.blob)
        signature = key.pair.sign(pkarr.signing_input(sequence, packet))
        return SignedRecordPacket(record.blob, record.expires, pkarr.join_body(signature, sequence, packet))

    def _sign_record(self, key: StoredKey, request: SignRecord, *, is_withdrawal: bool = False) -> SignedRecord:
        check_reachability(request.relays, request.addresses)
        now = self._now()
        name = key.header.name
        sequence = self._sequences[name] = max(self._sequences.get(name, 0) + 1, int(now * 1000))
        own = EndpointEntry(self._sign_delegation(key).blob, sequence, request.relays, request.addresses)
        others = tuple(self._valid_entries(key, request.others, sequence, now))
        if is_withdrawal and not others:
            return SignedRecord(b"", 0)
        entries = others if is_withdrawal else (own, *others)
        record = build_record(key.pair.public, sequence, now, RECORD_SECONDS, entries)
        return SignedRecord(sign_body(key, "record", record), int(now) + RECORD_SECONDS)

    def _valid_entries(
        self, key: StoredKey, entries: tuple[EndpointEntry, ...], sequence: int, now: float
    ) -> Iterator[EndpointEntry]:
        """Yield the entries of other endpoints that the identity itself has signed, and that are valid now.

        Raises:
            BadMessage, BadSignature: an entry is invalid.
        """
        own = self._store.transport.pair.public
        for entry in entries[: MAX_DELEGATIONS - 1]:
            delegation = check_entry(entry, key.pair.public).delegation
            is_own = delegation.endpoint == own or delegation.lineage == self._store.lineage
            if not is_own and now < delegation.not_after and entry.sequence < sequence:
                yield entry


def _endpoint(key: StoredKey) -> EndpointKey:
    return EndpointKey(key.pair.public, key.header.epoch, key.header.created)


def _public_part(key: StoredKey) -> IdentityKey:
    return IdentityKey(key.header.name, key.pair.public, key.header.created)
