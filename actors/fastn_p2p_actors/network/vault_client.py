"""Client of the vault: the network process requests the transport key, delegations and records."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded, InternalError, P2PError
from fastn_p2p_client.ipc.messages import Ack, Message, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel, check_reply, decode_answer
from fastn_p2p_client.limits import MAX_HEADER

from ..credentials.key_transfer import KeyReceiver
from ..vault.messages import (
    MAX_BATCH,
    ClaimHome,
    EnrolledReplicas,
    GetTransport,
    ListEnrolled,
    NoteOwner,
    RecordEvent,
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
)
from ..vault.messages import VaultReply as _VaultReply

log = logging.getLogger(__name__)

_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(_VaultReply)
_TIMEOUT: Final = 10.0
"""Seconds that the vault may take for a reply."""
_BATCH_BYTES: Final = MAX_HEADER // 2
"""Bytes of the requests in one batch, with room for the rest of its message."""

Kind = TypeVar("Kind", bound=Message)

_Waiting = tuple[SignDelegation | SignRecord, "asyncio.Future[Any]"]


# Delegations and records that are requested in one iteration of the event loop go to the vault together. For ten
# thousand identities, one message for each would take longer than the signatures.


class VaultClient:
    """Requests to the vault.

    Each raises ``DaemonBusy`` if the vault does not answer, and the vault's own error if it refuses.
    """

    def __init__(self, channel: RequestChannel) -> None:
        self._channel = channel
        self._waiting: list[_Waiting] = []
        """Requests of this iteration of the event loop."""
        self._batches: set[asyncio.Task[None]] = set()

    async def transport(self) -> TransportKey:
        """Return the transport key, with its secret unsealed: the caller wipes it. Wait until the vault has started.

        Raises:
            VaultLocked: the vault was not unlocked since it has started.
        """
        while True:
            try:
                receiver = KeyReceiver()
                reply = await self._request(GetTransport(receiver.public), TransportKey)
                return msgspec.structs.replace(reply, secret=receiver.open(reply.secret))
            except DaemonBusy as error:
                log.warning("waiting for the vault to give the transport key: %s", error)

    async def delegation(self, identity: str) -> SignedDelegation:
        """Return a new delegation of the identity to this daemon's endpoint."""
        return await self._signed(SignDelegation(identity), SignedDelegation)

    async def record(self, request: SignRecord) -> SignedRecord:
        """Return a new peer record of an identity."""
        return await self._signed(request, SignedRecord)

    async def packet(self, request: SignPacket) -> SignedRecordPacket:
        """Return a new peer record of an identity, and the packet with it for directories."""
        return await self._signed(request, SignedRecordPacket)

    async def invitation(self, request: SignInvitation) -> SignedInvitation:
        """Return a signed invitation of an identity."""
        return await self._request(request, SignedInvitation)

    async def replica_delegation(self, identity: str, endpoint: bytes, retired: bytes = b"") -> SignedDelegation:
        """Return a new delegation of an identity for a replica, or the one that retires it: see ``SignReplica``."""
        return await self._request(SignReplica(identity, endpoint, retired), SignedDelegation)

    async def enrolled(self, identity: str) -> EnrolledReplicas:
        """Return the replicas of an identity, and the homes of its bindings."""
        return await self._request(ListEnrolled(identity), EnrolledReplicas)

    async def claim_home(self, identity: str, binding: tuple[str, str], endpoint: bytes) -> EnrolledReplicas:
        """Give a binding a home unless it has one, and return the same as ``enrolled``: see ``ClaimHome``."""
        return await self._request(ClaimHome(identity, *binding, endpoint), EnrolledReplicas)

    async def note_owner(self, identity: str, statement: bytes) -> EnrolledReplicas:
        """Keep an owner statement if it is the highest, and return the same as ``enrolled``: see ``NoteOwner``."""
        return await self._request(NoteOwner(identity, statement), EnrolledReplicas)

    async def record_event(self, event: RecordEvent) -> Ack:
        """Have the vault write an event to the audit log."""
        return await self._request(event, Ack)

    async def _signed(self, request: SignDelegation | SignRecord, kind: type[Kind]) -> Kind:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send_waiting)
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((request, reply))
        return check_reply(await reply, kind, "the vault")

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch: list[_Waiting] = []
        size = 0
        for each in waiting:
            more = len(encode(each[0]))
            if batch and (len(batch) == MAX_BATCH or size + more > _BATCH_BYTES):
                self._send_batch(batch)
                batch, size = [], 0
            batch.append(each)
            size += more
        self._send_batch(batch)

    def _send_batch(self, batch: list[_Waiting]) -> None:
        task = asyncio.ensure_future(self._resolve(batch))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _resolve(self, batch: list[_Waiting]) -> None:
        """Request a batch, and resolve the future of each of its requests."""
        try:
            message = SignBatch(tuple(request for request, _ in batch))
            replies = (await self._request(message, SignedBatch)).replies
            if len(replies) != len(batch):
                raise InternalError(reason=f"the vault sent {len(replies)} replies to {len(batch)} requests")
        except P2PError as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            if not future.done():
                future.set_result(reply)

    async def _request(self, message: Message, kind: type[Kind]) -> Kind:
        try:
            answer = await self._channel.request(message, timeout=_TIMEOUT)
        except (ConnectionLost, DeadlineExceeded) as error:  # their texts would blame this process
            raise DaemonBusy(actor="vault") from error
        return check_reply(decode_answer(_decoder, answer.header), kind, "the vault")
