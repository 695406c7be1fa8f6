"""Access probe: ask a peer daemon whether it would let an identity use a protocol, without running a handler.

The peer daemon checks target, protocol, instance and access list of a call before a process gets it. So the probe is a
call that no process can execute: its command cannot be the name of a command, and its payload is not msgpack. A process
that gets it answers ``CommandNotFound``, and that answer means that the caller was let in.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import DeadlineExceeded, Denied, InstanceNotFound, P2PError, ProtocolNotFound
from fastn_p2p_client.ipc.messages import Call
from fastn_p2p_client.request_id import new_request_id

from ..connections.connection import PeerConnection

_COMMAND: Final = "?"
"""No command has this name, because names of commands begin with a letter."""
_PAYLOAD: Final = b"\xc1"
"""The one byte that msgpack never uses."""
_NO_ANSWER: Final = frozenset({"connection-lost", "deadline-exceeded", "overloaded", "peer-offline"})
"""Codes of errors that say nothing about the access list."""


class _ProbeCall:
    """Outcome of the probe: None if the peer daemon has let it pass."""

    may_repeat = False
    target = b""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[P2PError | None] = asyncio.get_running_loop().create_future()

    def on_reply(self, payload: bytes) -> None:
        self._end(None)

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        self._end(None)

    def on_error(self, error: P2PError) -> None:
        refused = isinstance(error, Denied | ProtocolNotFound | InstanceNotFound)
        self._end(error if refused or error.code in _NO_ANSWER else None)

    def _end(self, outcome: P2PError | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


async def request_access(
    connection: PeerConnection, source: bytes, target: bytes, protocol: str, instance: str, *, seconds: float
) -> P2PError | None:
    """Return None if ``target`` lets ``source`` use the protocol, or else the error that a call would end with."""
    probe = _ProbeCall()
    milliseconds = int(seconds * 1000)
    call = Call("", "", protocol, instance, milliseconds, _COMMAND)
    try:
        number = connection.requests.call(probe, source, target, call, milliseconds, _PAYLOAD, new_request_id())
    except P2PError as error:
        return error
    try:
        async with asyncio.timeout(seconds):
            return await probe.outcome
    except TimeoutError:
        return DeadlineExceeded(seconds=seconds)
    finally:
        connection.requests.cancel(number)
