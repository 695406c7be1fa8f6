"""The network's side of its conversation with the vault."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded, InternalError
from fastn_p2p_client.ipc.messages import (
    ErrorReply,
    Message,
)
from fastn_p2p_client.ipc.request_channel import (
    RequestChannel,
    decode_answer,
)

from ..vault.messages import GetTransport, SignDelegation, SignedDelegation, SignedRecord, SignRecord, Transport
from ..vault.messages import VaultReply as _VaultReply

__all__ = ["VaultClient"]

log = logging.getLogger(__name__)

_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(_VaultReply)
_TIMEOUT: Final = 10.0

Kind = TypeVar("Kind", bound=Message)


class VaultClient:
    """Typed requests; each raises P2PError with what the vault says, or that it does not answer."""

    def __init__(self, link: RequestChannel) -> None:
        self._link = link

    async def transport(self) -> Transport:
        """The transport key, however long the vault takes to come up."""
        while True:
            try:
                return await self._ask(GetTransport(), Transport)
            except DaemonBusy as error:
                log.warning("waiting for the transport key: %s", error)

    async def delegation(self, identity: str) -> SignedDelegation:
        return await self._ask(SignDelegation(identity), SignedDelegation)

    async def record(self, identity: str, relays: tuple[str, ...], addresses: tuple[str, ...]) -> SignedRecord:
        return await self._ask(SignRecord(identity, relays, addresses), SignedRecord)

    async def _ask(self, message: Message, kind: type[Kind]) -> Kind:
        try:
            answer = await self._link.request(message, timeout=_TIMEOUT)
        except (ConnectionLost, DeadlineExceeded) as error:  # whoever hears that would think it was about us
            raise DaemonBusy(actor="vault") from error
        reply = decode_answer(_decoder, answer.header)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        if not isinstance(reply, kind):
            raise InternalError(reason=f"the vault answered {type(reply).__name__}")
        return reply
