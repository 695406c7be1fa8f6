"""QUIC stream: its two halves, and its number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, RecvStream, SendStream


class QuicStream(NamedTuple):
    """Bidirectional QUIC stream. Its parts are read once, because the binding makes a new object for each read."""

    send: SendStream
    recv: RecvStream
    number: int
    """Stream id of QUIC (RFC 9000, section 2.1)."""

    @classmethod
    async def of(cls, stream: BiStream) -> QuicStream:
        """Read the parts of a stream."""
        send = stream.send()
        initiator, _, _, index = (await send.id()).split()  # "client bidirectional stream 0"
        return cls(send, stream.recv(), 4 * int(index) + (initiator == "server"))
