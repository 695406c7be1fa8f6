"""The protocol whose sessions are measured: it takes bytes and counts them, gives bytes, or says hello."""

from __future__ import annotations

from fastn_p2p_client.protocol import Protocol, stream
from fastn_p2p_client.session.session import Session

from .flow import GREETING, Order, draw, encode, pour

__all__ = ["Bytes"]


class Bytes(Protocol):
    """Public. Says what it has counted when all has come."""

    public = True

    @stream
    async def serve(self, session: Session, order: Order) -> None:
        if order.do == "read":
            await session.write(encode(await draw(session.read, order)))
        elif order.do == "write":
            await pour(session.write, order)
        else:
            await session.write(GREETING)
