"""Memory of sessions for tests, and a session of a program whose network process the test plays."""

from __future__ import annotations

import fcntl
import os
from typing import Final

import msgspec

from fastn_p2p_client.ipc.messages import DataRequest, Message, SessionOpened, WindowUpdate
from fastn_p2p_client.limits import CHUNK_COST, MAX_CHUNK, SESSION_WINDOW
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.session.shared_memory import SIZE, Chunk, SharedMemory

__all__ = ["SessionSetup", "make_descriptor"]

_decode: Final = msgspec.msgpack.Decoder(DataRequest).decode


def make_descriptor() -> int:
    """Return the descriptor of memory as the network process makes it."""
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


class SessionSetup:
    """Open session of a program.

    Attributes:
        sent: what the session has sent after its first bytes.
        tokens: tokens with which it has taken memory.
        daemon: the memory, as the network process has it.
    """

    def __init__(self, *, take: bool = True, failure: Exception | None = None) -> None:
        self.sent: list[Message] = []
        self.tokens: list[bytes] = []
        self._failure = failure
        self._descriptor = make_descriptor()
        self.daemon = SharedMemory(self._descriptor, is_daemon=True)
        self.session = Session(
            self._send, protocol="Test", instance="default", receive_descriptor=self._take if take else None
        )
        self.receive(SessionOpened(SESSION_WINDOW))

    def receive(self, message: Message, payload: bytes = b"") -> None:
        self.session.on_message(message, payload)

    async def carry(self, size: int) -> None:
        """Write so many bytes, and grant credit for them."""
        sent, self.sent = self.sent, []
        while size:
            part = min(size, MAX_CHUNK)
            await self.session.write(bytes(part))
            size -= part
            self.sent.clear()
            self.receive(WindowUpdate(part + CHUNK_COST))
        self.sent = sent + self.sent

    def _send(self, header: bytes, payload: Chunk) -> None:
        self.sent.append(_decode(header))

    async def _take(self, token: bytes) -> int:
        self.tokens.append(token)
        if self._failure is not None:
            raise self._failure
        return self._descriptor
