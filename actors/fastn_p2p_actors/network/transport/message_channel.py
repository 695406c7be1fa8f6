"""Message channel: short messages over one bidirectional stream of a QUIC connection."""

from __future__ import annotations

from typing import Final, Protocol

from iroh.iroh_ffi import BiStream, Connection, IrohError

from .endpoint import EndpointAddress, NetworkEndpoint

MAX_MESSAGE: Final = 32 * 1024
"""Bytes of one message: a ticket has at most 26 KiB."""
_LENGTH_BYTES: Final = 4


class ChannelClosed(Exception):
    """The connection ended, or what came on it is no message."""


class Channel(Protocol):
    """Messages to and from the peer."""

    async def send(self, message: bytes) -> None:
        """Send a message. Raises ChannelClosed."""
        ...

    async def receive(self) -> bytes:
        """Return the next message. Raises ChannelClosed."""
        ...

    def close(self) -> None:
        """End the connection. Messages that have not arrived are lost."""
        ...


class QuicChannel:
    """Channel over the first stream of a connection.

    Attributes:
        peer: public key of the endpoint at the other end, proved by the handshake, 32 bytes.
    """

    def __init__(self, connection: Connection, stream: BiStream) -> None:
        self._connection = connection
        self._sending, self._receiving = stream.send(), stream.recv()
        self._pending = b""
        self.peer = bytes(connection.remote_id().to_bytes())

    @classmethod
    async def dial(cls, endpoint: NetworkEndpoint, address: EndpointAddress) -> QuicChannel:
        """Connect to an endpoint.

        Raises:
            PeerUnreachable: the handshake failed.
            ChannelClosed: the connection ended at once.
        """
        connection = await endpoint.dial(address)
        try:
            return cls(connection, await connection.open_bi())
        except IrohError as error:
            raise ChannelClosed(error.message()) from None

    @classmethod
    async def accept(cls, connection: Connection) -> QuicChannel:
        """Wait for the first message on a connection. Raises ChannelClosed."""
        try:
            return cls(connection, await connection.accept_bi())
        except IrohError as error:
            raise ChannelClosed(error.message()) from None

    async def send(self, message: bytes) -> None:
        try:
            await self._sending.write_all(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
        except IrohError as error:
            raise ChannelClosed(error.message()) from None

    async def receive(self) -> bytes:
        size = int.from_bytes(await self._read(_LENGTH_BYTES), "big")
        if size > MAX_MESSAGE:
            self.close()
            raise ChannelClosed(f"a message of {size} bytes")
        return await self._read(size)

    async def _read(self, size: int) -> bytes:
        while len(self._pending) < size:
            try:
                piece = await self._receiving.read(MAX_MESSAGE)
            except IrohError as error:
                raise ChannelClosed(error.message()) from None
            if not piece:
                raise ChannelClosed("the other daemon has ended")
            self._pending += piece
        taken, self._pending = self._pending[:size], self._pending[size:]
        return taken

    def close(self) -> None:
        try:
            self._connection.close(0, b"")
        except IrohError:  # it has ended already
            return
