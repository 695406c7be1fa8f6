"""QUIC stream: its two halves, its number, and the code with which a peer ends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from iroh.iroh_ffi import IrohError

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, RecvStream, SendStream

_CODE: Final = re.compile(r"^(Reset|Stopped)\((\d+)\)")


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


def code_of(error: IrohError) -> int | None:
    """Return the code with which the peer has ended the stream, or None if the error has another cause."""
    found = _CODE.match(error.message())
    return int(found[2]) if found else None
