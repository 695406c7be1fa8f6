"""Backpressure from a local process to the QUIC streams whose bytes it gets.

Problem: a process grants up to 1 MiB of credit for each session. With many sessions that is far more than it reads from
its socket at once, and the rest would wait in the network process.

Idea: while 4 MiB wait for a process, no stream is read for it. Unread bytes stay with QUIC, where they are charged to
the peer, and where flow control stops the peer's writes.

Cost: one comparison per read, and one timer per process that does not keep up. Not covered: replies and requests of
calls, which ``payload_memory`` limits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from ...runtime.mailbox import Sender

MUCH_WAITS: Final = 4 * 1024 * 1024
"""Bytes that wait for a local process above which no more are read for it. It reads as many in a few milliseconds."""
_BLOCK: Final = 256 * 1024
"""Bytes that one read may return."""
_CHECK_INTERVAL: Final = 0.002
"""Seconds between checks. There is one timer per process, because thousands of sessions may wait for the same one."""


class Backpressure:
    """Backpressure from one local process. Readers continue in the order in which they began to wait."""

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
        """Wait until one more block may be read, or until the process has ended."""
        reader: asyncio.Future[None] = self._loop.create_future()
        self._readers.append(reader)
        if len(self._readers) == 1:
            self._loop.call_later(_CHECK_INTERVAL, self._check)
        await reader

    def _check(self) -> None:
        """Resume as many readers as there is room for blocks."""
        readers = self._readers
        room = MUCH_WAITS - self._sender.backlog
        while readers and (room > 0 or self._sender.gone):
            reader = readers.popleft()
            if not reader.done():
                reader.set_result(None)
                room -= _BLOCK
        if readers:
            self._loop.call_later(_CHECK_INTERVAL, self._check)
