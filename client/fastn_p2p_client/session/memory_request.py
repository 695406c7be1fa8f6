"""``MemoryRequest``: the memory that one session of a program shares, from the request until it is mapped.

::

    ASKING ── SHARE_AFTER bytes: ShareMemory ──► WAITING ── MemoryReady ──► MAPPING ── ShareMemory(is_mapped) ──► memory
                                                 no answer: stays             it fails: ENDED

In all states but the last, the bytes of the session travel in messages.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final
from weakref import WeakMethod

from ..errors import P2PError
from ..limits import MAX_CHUNK
from .shared_memory import SHARE_AFTER, ReceiveDescriptor, SharedMemory

_KEPT: Final = 8 * MAX_CHUNK
"""Bytes of freed memory that the heap keeps, so that the next chunks need no new pages."""


def keep_freed_chunks() -> None:
    """Make the heap keep the memory of chunks that the program has read, for the next ones.

    glibc returns the end of the heap to the kernel once twice as many bytes are free there as the largest block had
    that was mapped and freed. With chunks of different sizes that is one read in five, and the kernel clears each page
    of the next one. The block here is never written to, so it costs no memory. Other allocators ignore it.
    """
    bytes(_KEPT)


class MemoryRequest:
    """Memory of one session.

    Args:
        receive: receives the descriptor.
        send: sends ``ShareMemory`` with this value of ``is_mapped``. The session owns it.

    Attributes:
        memory: the memory, once it is mapped.
    """

    __slots__ = ("_receive", "_requested", "_send", "_task", "memory")

    def __init__(self, receive: ReceiveDescriptor, send: Callable[[bool], None]) -> None:
        self._receive: ReceiveDescriptor | None = receive
        self._send = WeakMethod(send)
        """The session must not be kept alive by what it owns."""
        self._requested = False
        self._task: asyncio.Task[None] | None = None
        self.memory: SharedMemory | None = None

    def carried(self, size: int) -> None:
        """So many bytes have passed in one direction: ask for memory once they are enough."""
        if size >= SHARE_AFTER and not self._requested:
            self._requested = True
            self._notify(False)

    def on_ready(self, token: bytes) -> None:
        """Map the memory, which the network process has ready."""
        receive, self._receive = self._receive, None
        if self._requested and receive is not None:
            self._task = asyncio.get_running_loop().create_task(self._map(receive, token))

    def end(self) -> None:
        """Share nothing any more, because the session has ended."""
        self._receive = self.memory = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _map(self, receive: ReceiveDescriptor, token: bytes) -> None:
        """Map the memory. If that fails, the bytes go on over the socket."""
        try:
            descriptor = await receive(token)
            try:
                self.memory = SharedMemory(descriptor, is_daemon=False)
                keep_freed_chunks()
            finally:
                os.close(descriptor)
        except (OSError, P2PError, TimeoutError, ValueError):
            return
        finally:
            self._task = None
        self._notify(True)

    def _notify(self, is_mapped: bool) -> None:
        send = self._send()
        if send is not None:
            send(is_mapped)
