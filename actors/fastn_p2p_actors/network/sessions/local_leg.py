"""Local leg of a session: the program that opened it, or the process that serves it."""

from __future__ import annotations

from typing import Final, NamedTuple

from fastn_p2p_client.ipc.messages import DeliverSession, Message, SessionData, SharedData, encode
from fastn_p2p_client.session.shared_memory import SMALLEST, Chunk, SharedMemory

from ...runtime.mailbox import Mailbox, Sender

_DAEMON_ID: Final = 3 << 62
"""Bits of the correlation ids that this process chooses for sessions. They differ from those of calls, and from ids
that programs choose."""


def daemon_id(number: int) -> bytes:
    """Return the correlation id of the session ``number`` that this process offers to a local process."""
    return (_DAEMON_ID | number).to_bytes(8, "big")


def is_daemon_id(correlation: bytes) -> bool:
    """Return whether this process has chosen the correlation id, for a session."""
    return len(correlation) == 8 and correlation[0] >= 0xC0


class Offered(NamedTuple):
    """Offer of a session to the identity's own process."""

    message: DeliverSession
    payload: bytes
    expires: float
    """Monotonic seconds."""


class LocalLeg:
    """Leg of a local process: the opener, or the server."""

    __slots__ = ("_mailbox", "correlation", "has_token", "is_mapped", "memory", "offered", "sender")

    def __init__(self, mailbox: Mailbox, sender: Sender, correlation: bytes) -> None:
        self._mailbox = mailbox
        self.sender = sender
        self.correlation = correlation
        self.memory: SharedMemory | None = None
        """Memory of the session, once its process has taken it."""
        self.has_token = False
        """True once the session was given a token for its memory, which happens once."""
        self.is_mapped = False
        """True once the process has mapped the memory, and bytes for it may be written there."""
        self.offered: Offered | None = None
        """The offer to the process, while it may let a worker take the session."""

    @property
    def key(self) -> tuple[Sender, bytes]:
        """Key in the tables of sessions."""
        return self.sender, self.correlation

    def discard_offer(self) -> None:
        """The session is open, so no worker can take it any more."""
        self.offered = None

    def read(self, message: SharedData) -> memoryview | None:
        """Return a view of a chunk that the process has written to the memory of the session; None if it has not."""
        return None if self.memory is None else self.memory.read(message.start, message.size)

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        """Send a message of the relay to the process."""
        memory = self.memory if self.is_mapped and type(message) is SessionData else None
        if memory is not None and (isinstance(payload, memoryview) or len(payload) >= SMALLEST):
            header, payload = encode(SharedData(memory.write(payload), len(payload))), b""
        self._mailbox.send(self.sender, self.correlation, header, payload, credited=True)
