"""A connection of a service joined to a session, so that its two ends cannot tell that there is one in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.limits import MAX_CHUNK, RESET_LOST
from fastn_p2p_client.session import Session

from .concurrency import together

__all__ = ["RESET_BROKEN", "break_off", "splice"]

RESET_BROKEN: Final = 1
"""The code with which a session ends whose connection was reset."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)


async def splice(session: Session, connection: socket.socket) -> P2PError | None:
    """Carries bytes both ways between a session that stands and a connected, non-blocking socket; then both are closed.

    The end of one direction is passed on while the other one goes on. A session that breaks or is reset resets the
    connection, and the other way round. Whoever sends faster than the other end takes waits.

    Returns:
        Why the session ended early; None when it was complete, or when it was the connection that ended.
    """
    try:
        await together(_take(connection, session), _give(session, connection), session.wait_sent())
        await session.close()
    except P2PError as error:
        _break(session, connection, RESET_BROKEN)
        return error
    except OSError:
        _break(session, connection, RESET_BROKEN)
        return None
    except BaseException:  # whoever does this ends, with no fault of the connection
        _break(session, connection, RESET_LOST)
        raise
    connection.close()
    return None


def _break(session: Session, connection: socket.socket, code: int) -> None:
    session.abort(code)
    break_off(connection)


def break_off(connection: socket.socket) -> None:
    """Closes it so that its other end sees a reset, not an end: what it has sent may not have arrived."""
    with contextlib.suppress(OSError):
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    connection.close()


async def _take(connection: socket.socket, session: Session) -> None:
    while data := await _received(connection):
        await session.write(data)
    await session.send_eof()


async def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(MAX_CHUNK)
    except BlockingIOError:  # uvloop's sock_recv waits first: a dozen system calls while data is there
        return await asyncio.get_running_loop().sock_recv(connection, MAX_CHUNK)


async def _give(session: Session, connection: socket.socket) -> None:
    send = asyncio.get_running_loop().sock_sendall
    while chunk := await session.read():
        await send(connection, chunk)
    connection.shutdown(socket.SHUT_WR)
