"""Memory that sessions share with local processes: which sessions get some, and who may take it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
from typing import Final, TypeAlias

from fastn_p2p_client.errors import BadMessage, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, GetMemory, MemoryReady, ShareMemory, encode
from fastn_p2p_client.session.shared_memory import SIZE, SharedMemory

from ...runtime.mailbox import Mailbox, Sender
from ..connections.session_handshake import IncomingSession, OutgoingSession
from .local_leg import LocalLeg
from .relay import Leg, SessionRelay

MAX_SHARED: Final = 20
"""Sessions that share memory at the same time: 70 MiB at most. The bytes of all others pass the socket."""
MAX_SHARED_OF_PROCESS: Final = 10
"""Limit for one process, over all its connections, so that no program has all."""
TOKEN_SECONDS: Final = 10.0
"""Seconds after which a token counts no more. A process that has none of its memory by then keeps no other from it."""
_TOKEN: Final = 16
"""Bytes of a token: nobody can guess one."""
_Process: TypeAlias = tuple[int, int, str | None]
"""User, pid and identity: the supervisor connects for the identities, with its own pid."""

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_NO_EXECUTION: Final = 0x8
"""``MFD_NOEXEC_SEAL``, since Linux 6.3: the memory can never be executed."""

log = logging.getLogger(__name__)


class MemorySharing:
    """Memory of the sessions with peers.

    A session asks for it once it has carried some bytes. It gets a token, with which its process takes the descriptor
    over a connection of its own. The memory is made then, and freed when the session has ended and no byte in it waits
    to be written.

    Args:
        mailbox: of the network process.

    Attributes:
        mapped: memories that are mapped now.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._tokens: dict[bytes, LocalLeg] = {}
        self._sessions: dict[LocalLeg, _Process] = {}
        """Sessions that share memory, or have a token."""
        self.mapped = 0

    @property
    def sessions(self) -> int:
        """Number of sessions that share memory, or have a token."""
        return len(self._sessions)

    def on_share(self, relay: SessionRelay, leg: Leg | None, message: ShareMemory) -> None:
        """Handle a message of the process behind ``leg``. Without room for more memory there is no answer."""
        remote = relay.server if leg is relay.opener else relay.opener
        if relay.done or not relay.opened or not isinstance(leg, LocalLeg):
            return
        if not isinstance(remote, IncomingSession | OutgoingSession):
            return
        if not message.is_mapped:
            self._send_token(relay, leg)
        elif leg.memory is not None and not leg.is_mapped:
            leg.is_mapped = True
            relay.on_memory_mapped()
            remote.share(leg.memory)

    def _send_token(self, relay: SessionRelay, leg: LocalLeg) -> None:
        process = _process_of(leg.sender)
        taken = list(self._sessions.values())
        if leg.sender.is_remote:
            return  # a descriptor does not travel to another machine
        if leg.has_token or max(self.mapped, len(taken)) >= MAX_SHARED or taken.count(process) >= MAX_SHARED_OF_PROCESS:
            return
        token = secrets.token_bytes(_TOKEN)
        self._tokens[token] = leg
        self._sessions[leg] = process
        leg.has_token = True
        timer = asyncio.get_running_loop().call_later(TOKEN_SECONDS, self._revoke, token)

        def end() -> None:
            timer.cancel()
            self._tokens.pop(token, None)
            self._sessions.pop(leg, None)
            leg.memory = None
            leg.is_mapped = False

        relay.at_end.append(end)
        self._mailbox.send(leg.sender, leg.correlation, encode(MemoryReady(token)), credited=True)

    def _revoke(self, token: bytes) -> None:
        """Give the memory to another session: nobody has taken it."""
        leg = self._tokens.pop(token, None)
        if leg is not None:
            del self._sessions[leg]

    def on_get(self, sender: Sender, correlation: bytes, message: GetMemory) -> None:
        """Make the memory that the token stands for, and send its descriptor. A token counts once."""
        leg = self._tokens.pop(message.token, None)
        error: P2PError = BadMessage(reason="no session has this token")
        if leg is not None:
            if _process_of(leg.sender) == _process_of(sender):
                try:
                    self._send_memory(leg, sender, correlation)
                    return
                except (OSError, ValueError) as failure:
                    log.info("a session goes on without shared memory: %s", failure)
                    error = Overloaded(what="memory of sessions", limit=MAX_SHARED)
            del self._sessions[leg]
        self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))

    def _send_memory(self, leg: LocalLeg, sender: Sender, correlation: bytes) -> None:
        if self.mapped >= MAX_SHARED:
            raise BlockingIOError("sessions that have ended still write from all the memory that there may be")
        descriptor = make_memory()
        try:
            memory = SharedMemory(descriptor, is_daemon=True, on_free=self._on_free)
            self.mapped += 1
            if not sender.connection.send_descriptor(correlation, encode(Ack()), descriptor):
                raise BlockingIOError("the connection does not take a descriptor")
            leg.memory = memory
        finally:
            os.close(descriptor)

    def _on_free(self) -> None:
        self.mapped -= 1


def _process_of(sender: Sender) -> _Process:
    return sender.uid, sender.pid, sender.identity


def make_memory() -> int:
    """Return the descriptor of new memory, all zeros, whose size nobody can change. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("fastn-p2p-session", flags | _NO_EXECUTION)
    except OSError:  # an older kernel
        descriptor = os.memfd_create("fastn-p2p-session", flags)
    try:
        os.ftruncate(descriptor, SIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
