"""Memory that one session shares with the network process, so that its bytes pass no socket.

Only bytes are in the memory. All that has to be believed travels in messages over the socket, as before: where a chunk
lies, credit, and ends. So there are no counters that both sides change, and no wake-ups of its own: order, flow control
and errors are those of the socket. A chunk is free again when its reader grants credit for it::

           half of the writer, HALF bytes
      ┌────────────┬───────────────────┬──────────────────────────┬──────┐
      │   free     │  sent, not read   │          free            │ rest │
      └────────────┴───────────────────┴──────────────────────────┴──────┘
                   ▲                   ▲
          credit is granted       the next chunk starts here: SharedData(start, size).
          up to here              If it does not fit before the end, it starts at 0.

      program                               network process
        ├── ShareMemory ────────────────────────► has room for one more: makes a token
        │ ◄──────────────────── MemoryReady(token)┤
        ├── GetMemory(token), connection of its own ► makes the memory, seals its size, maps it
        │ ◄──────────────────── Ack, with descriptor ┤
        ├── ShareMemory(is_mapped) ─────────────► from here both send SharedData, or SessionData as they like

With ``ShareMemory(is_mapped)`` both sides have ``MORE_CREDIT``, ``WINDOW`` in all. More bytes then wait in the memory
than would in a socket, and a busy machine wakes each process less often.

The credit is at most ``WINDOW``, and the rest that is skipped is shorter than a chunk. So a chunk never covers one that
was not read, in ``WINDOW + MAX_CHUNK`` bytes. A side that breaks the rules only spoils bytes of its own session: each
side checks that a chunk lies within the memory, and copies it once.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

from ..limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW

SHARE_AFTER: Final = 256 * 1024
"""Bytes of a direction after which a session asks for shared memory. Short sessions never do."""
SMALLEST: Final = 16 * 1024
"""Bytes: smaller chunks travel in messages."""
WINDOW: Final = 6 * (MAX_CHUNK + CHUNK_COST)
"""Bytes of one direction that are on their way at most: whole chunks, so that no small rest of a chunk is left over."""
MORE_CREDIT: Final = WINDOW - SESSION_WINDOW
"""Bytes by which the credit of both directions grows once the memory is mapped."""
HALF: Final = WINDOW + MAX_CHUNK
"""Bytes for one direction."""
SIZE: Final = 2 * HALF
"""Bytes of the memory: first those that the program writes, then those that the network process writes."""

Chunk: TypeAlias = bytes | memoryview
"""Bytes of a chunk, or a view of them in shared memory: to be copied once, because the other side may change them."""
ReceiveDescriptor: TypeAlias = Callable[[bytes], Awaitable[int]]
"""Receives the descriptor of the memory by its token. Raises OSError or P2PError."""


def check_size(descriptor: int) -> None:
    """Check that the memory has its size for ever.

    A process that has mapped memory which another one has cut off would end with SIGBUS at the next access.

    Raises:
        OSError, ValueError: it has another size, or its size can change.
    """
    import fcntl  # where there is no memory to share, the module may have no seals

    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    if os.fstat(descriptor).st_size != SIZE or fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & seals != seals:
        raise ValueError("the memory of a session has another size, or its size can change")


class SharedMemory:
    """Memory of one session, mapped in this process. It is unmapped with the last view of it.

    Args:
        descriptor: of the memory. The caller closes it.
        is_daemon: True in the network process, which writes to the second half.
        on_free: called when it is unmapped.

    Raises:
        OSError, ValueError: it cannot be mapped, or its size can change.
    """

    __slots__ = ("_incoming", "_outgoing", "_pages", "_position", "_room")

    def __init__(self, descriptor: int, *, is_daemon: bool, on_free: Callable[[], object] | None = None) -> None:
        check_size(descriptor)
        self._pages = _Pages(descriptor, SIZE)
        self._pages.on_free = on_free
        view = memoryview(self._pages)
        first, second = view[:HALF], view[HALF:]
        self._outgoing, self._incoming = (second, first) if is_daemon else (first, second)
        self._position = 0
        self._room = 0
        """Where the last room starts."""

    def room(self, size: int) -> memoryview:
        """Return the memory for the next chunk, whose size is ``size`` at most: fill it, then ``write`` its part."""
        self._room = start = self._position if self._position + size <= HALF else 0
        return self._outgoing[start : start + size]

    def write(self, chunk: Chunk) -> int:
        """Write a chunk, and return where it starts. The credit must allow it. The begin of ``room`` is not copied."""
        size = len(chunk)
        if type(chunk) is memoryview and chunk.obj is self._pages:
            start = self._room
        else:
            start = self._position if self._position + size <= HALF else 0
            self._outgoing[start : start + size] = chunk
        self._position = start + size
        return start

    def read(self, start: int, size: int) -> memoryview | None:
        """Return a view of a chunk of the other side; None if there cannot be one. The other side may change it."""
        if start < 0 or not 0 < size <= MAX_CHUNK or start + size > HALF:
            return None
        return self._incoming[start : start + size]


class _Pages(mmap.mmap):
    """Mapped pages that report when they are unmapped."""

    on_free: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self.on_free is not None:
            with suppress(RuntimeError):
                self.on_free()
