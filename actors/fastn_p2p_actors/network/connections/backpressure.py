"""Backpressure from a local process to the QUIC streams whose bytes it gets.

A process grants up to 1 MiB of credit for each session. With many sessions that is far more than it takes out of its
socket at once, and the rest would wait in this process. So while much waits for it, no stream is read for it. What is
not read stays with QUIC, where it is charged to the peer, and where flow control stops the peer's writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from ...runtime.mailbox import Sender

MUCH_WAITS: Final = 4 * 1024 * 1024
"""Bytes that wait for a local process above which no more are read for it: what it takes in a few milliseconds."""
_BLOCK: Final = 256 * 1024
"""Bytes that one read may bring."""
_LOOK_AGAIN: Final = 0.002
"""Seconds between looks at what waits. One timer per process: thousands of sessions may wait for the same one."""


class Backpressure:
    """Backpressure from one local process. Readers get their turns in the order in which they have come."""

    __slots__ = ("_loop", "_readers", "_sender")

    def __init__(self, loop: asyncio.AbstractEventLoop, sender: Sender) -> None:
        self._loop = loop
        self._sender = sender
        self._readers: deque[asyncio.Future[None]] = deque()

    @property
    def is_high(self) -> bool:
        """Return whether a reader has to ``wait`` before it reads for the process."""
        return self._sender.backlog > MUCH_WAITS

    async def wait(self) -> None:
        """Return when one more block may be read, or when the process has ended."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._readers.append(turn)
        if len(self._readers) == 1:
            self._loop.call_later(_LOOK_AGAIN, self._look)
        await turn

    def _look(self) -> None:
        """Let as many readers go on as there is room for blocks."""
        readers = self._readers
        room = MUCH_WAITS - self._sender.backlog
        while readers and (room > 0 or self._sender.gone):
            turn = readers.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= _BLOCK
        if readers:
            self._loop.call_later(_LOOK_AGAIN, self._look)
