"""Mailbox of the network process while the vault is locked: every request gets the error ``VaultLocked``.

Without the transport key there is no endpoint. Programs, identity processes and the gateway must still learn why, and
the daemon must count as ready, so that its owner and a service manager can go on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final

import msgspec

from fastn_p2p_client.errors import VaultLocked
from fastn_p2p_client.ipc.messages import UNDECODABLE, Ack, Cancel, ErrorReply, encode

from ..runtime.actor import ActorContext
from ..runtime.mailbox import Mailbox, Sender
from ..vault.messages import TransportKey
from .admin_messages import AuthenticateGateway, NetworkRequest
from .vault_client import VaultClient

RETRY_SECONDS: Final = 0.5
"""Seconds between two requests for the transport key."""

_decoder: Final = msgspec.msgpack.Decoder(NetworkRequest)
log = logging.getLogger(__name__)


async def transport_key(
    vault: VaultClient, context: ActorContext, listener: socket.socket | None = None
) -> TransportKey:
    """Return the transport key. While the vault is locked, serve a ``LockedMailbox``, at ``listener`` if there is one.

    Raises:
        P2PError: the vault refuses the transport key for another reason.
    """
    try:
        return await vault.transport()
    except VaultLocked as error:
        log.warning("%s", error)
    mailbox = LockedMailbox(context, listener)
    mailbox.open()
    try:
        context.ready()
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                return await vault.transport()
            except VaultLocked:
                continue
    finally:
        mailbox.close()


class LockedMailbox:
    """Mailbox that has the same socket as that of the network process."""

    def __init__(self, context: ActorContext, listener: socket.socket | None = None) -> None:
        path = context.home.mailbox("network")
        self._mailbox = Mailbox(path, self._on_message, limits=context.connection_limits(), listener=listener)
        self._reply = encode(ErrorReply.of(VaultLocked(what="reaching peers")))

    def open(self) -> None:
        """Bind the socket."""
        self._mailbox.open()

    def close(self) -> None:
        """End every connection: each program and process connects again."""
        self._mailbox.close()

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, _payload: bytes) -> None:
        try:
            message = _decoder.decode(header)
        except UNDECODABLE:
            message = None
        if not isinstance(message, Cancel):
            reply = encode(Ack()) if isinstance(message, AuthenticateGateway) else self._reply
            self._mailbox.send(sender, correlation, reply)
