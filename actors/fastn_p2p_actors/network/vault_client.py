"""Client of the vault: the network process requests the transport key, delegations and records."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded
from fastn_p2p_client.ipc.messages import Ack, Message
from fastn_p2p_client.ipc.request_channel import RequestChannel, check_reply, decode_answer

from ..credentials.key_transfer import KeyReceiver
from ..vault.messages import (
    GetTransport,
    RecordEvent,
    SignDelegation,
    SignedDelegation,
    SignedInvitation,
    SignedRecord,
    SignedRecordPacket,
    SignInvitation,
    SignPacket,
    SignRecord,
    TransportKey,
)
from ..vault.messages import VaultReply as _VaultReply

log = logging.getLogger(__name__)

_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(_VaultReply)
_TIMEOUT: Final = 10.0
"""Seconds that the vault may take for a reply."""

Kind = TypeVar("Kind", bound=Message)


class VaultClient:
    """Requests to the vault.

    Each raises ``DaemonBusy`` if the vault does not answer, and the vault's own error if it refuses.
    """

    def __init__(self, channel: RequestChannel) -> None:
        self._channel = channel

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
        return await self._request(SignDelegation(identity), SignedDelegation)

    async def record(self, request: SignRecord) -> SignedRecord:
        """Return a new peer record of an identity."""
        return await self._request(request, SignedRecord)

    async def packet(self, request: SignPacket) -> SignedRecordPacket:
        """Return a new peer record of an identity, and the packet with it for directories."""
        return await self._request(request, SignedRecordPacket)

    async def invitation(self, request: SignInvitation) -> SignedInvitation:
        """Return a signed invitation of an identity."""
        return await self._request(request, SignedInvitation)

    async def record_event(self, event: RecordEvent) -> Ack:
        """Have the vault write an event to the audit log."""
        return await self._request(event, Ack)

    async def _request(self, message: Message, kind: type[Kind]) -> Kind:
        try:
            answer = await self._channel.request(message, timeout=_TIMEOUT)
        except (ConnectionLost, DeadlineExceeded) as error:  # their texts would blame this process
            raise DaemonBusy(actor="vault") from error
        return check_reply(decode_answer(_decoder, answer.header), kind, "the vault")
