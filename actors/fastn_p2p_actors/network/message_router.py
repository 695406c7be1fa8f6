"""Message router: gives each message in the mailbox to the part of the network process that it concerns."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any, Final

import msgspec

from fastn_p2p_client.errors import BadMessage, InternalError, P2PError
from fastn_p2p_client.ipc.message_cache import MessageCache
from fastn_p2p_client.ipc.messages import (
    UNDECODABLE,
    ApplicationErrorReply,
    Call,
    CallUnknown,
    Cancel,
    ErrorReply,
    GetMemory,
    Message,
    OpenSession,
    RedeemRoute,
    Reply,
    RouteSession,
    WaitForPeer,
    encode,
)

from ..runtime.connection_limits import ConnectionLimits
from ..runtime.mailbox import Mailbox, Sender
from .admin import Admin
from .admin_messages import NetworkRequest
from .calls.incoming import IncomingCalls
from .calls.outgoing import OutgoingCalls
from .discovery.online_waits import OnlineWaits
from .registration_requests import RegistrationRequest, RegistrationRequests
from .sender_identity import SenderIdentity
from .sessions.local_leg import is_daemon_id
from .sessions.manager import SESSION_MESSAGES, SessionManager
from .workers.session_routes import SessionRoutes
from .workers.worker_access import WorkerAccess
from .workers.worker_listener import WorkerListener

log = logging.getLogger(__name__)

_messages: Final = MessageCache(msgspec.msgpack.Decoder(NetworkRequest))


class MessageRouter:
    """Reads the mailbox.

    The parts need the mailbox at their creation. ``attach`` hands them in before it is opened.

    Args:
        path: address of the mailbox.
        limits: limits of its connections.
        listener: its socket, if it was bound already.

    Attributes:
        mailbox: the mailbox, for its owner to open and to close.
        access: which messages of workers pass.
    """

    def __init__(self, path: Path, limits: ConnectionLimits, listener: socket.socket | None) -> None:
        self.mailbox = Mailbox(path, self._on_message, on_gone=self._on_gone, limits=limits, listener=listener)
        self.access = WorkerAccess(self.mailbox.end)
        self._sender_identity = SenderIdentity()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outgoing: OutgoingCalls
        self._incoming: IncomingCalls
        self._sessions: SessionManager
        self._waits: OnlineWaits
        self._routes: SessionRoutes
        self._workers: WorkerListener
        self._registrations: RegistrationRequests
        self._admin: Admin

    def attach(
        self,
        outgoing: OutgoingCalls,
        incoming: IncomingCalls,
        sessions: SessionManager,
        waits: OnlineWaits,
        routes: SessionRoutes,
        workers: WorkerListener,
        registrations: RegistrationRequests,
        admin: Admin,
    ) -> None:
        """Set the parts that get the messages. Must be called before the mailbox is opened."""
        self._outgoing = outgoing
        self._incoming = incoming
        self._sessions = sessions
        self._waits = waits
        self._routes = routes
        self._workers = workers
        self._registrations = registrations
        self._admin = admin

    def cancel_requests(self) -> None:
        """Cancel the requests of the gateway and of processes that serve which have no answer yet."""
        for task in self._tasks:
            task.cancel()

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            message = _messages[header]
        except UNDECODABLE as error:
            self._fail(sender, correlation, BadMessage(reason=str(error)))
            return
        kind = type(message)
        if kind is Reply:
            self._incoming.on_answer(sender, correlation, message, payload)
            return
        if sender.identity or sender.is_remote:
            try:
                message = self._checked(sender, message)
            except P2PError as error:
                self._fail(sender, correlation, error)
                return
        if kind is Call:
            self._outgoing.on_call(sender, correlation, message, payload)
        elif kind is CallUnknown or (
            (kind is ApplicationErrorReply or kind is ErrorReply) and not is_daemon_id(correlation)
        ):
            self._incoming.on_answer(sender, correlation, message, payload)
        elif kind in SESSION_MESSAGES:
            self._sessions.on_session_message(sender, correlation, header, message, payload)
        elif kind is Cancel:
            self._outgoing.on_cancel(sender, correlation)
            self._sessions.on_session_message(sender, correlation, header, message, payload)
            self._waits.on_cancel(sender, correlation)
        elif kind is WaitForPeer:
            self._waits.on_wait(sender, correlation, message)
        elif kind is GetMemory:
            self._sessions.sharing.on_get(sender, correlation, message)
        elif kind is RouteSession:
            self._routes.on_route(sender, correlation, message)
        elif kind is RedeemRoute:
            self._routes.on_redeem(sender, correlation, message)
        elif kind is OpenSession:
            self._sessions.on_open(sender, correlation, message, payload)
        else:
            task = self._loop.create_task(self._answer(sender, correlation, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _checked(self, sender: Sender, message: Any) -> Any:
        """Return a message of an identity's process, or of a worker. Raises Forbidden."""
        if sender.is_remote:
            self.access.check(sender, message)
            return message
        return self._sender_identity.checked(sender.identity or "", message)

    async def _answer(self, sender: Sender, correlation: bytes, message: Message) -> None:
        try:
            if isinstance(message, RegistrationRequest):
                reply = await self._registrations.handle(sender, message)
                if sender.is_remote:
                    self._workers.on_token(sender)
            else:
                reply = await self._admin.handle(sender, message)
        except P2PError as error:
            self._fail(sender, correlation, error)
        except Exception:
            log.exception("%s", type(message).__name__)
            self._fail(sender, correlation, InternalError(reason=f"{type(message).__name__} failed; see the log"))
        else:
            self.mailbox.send(sender, correlation, encode(reply))

    def _fail(self, sender: Sender, correlation: bytes, error: P2PError) -> None:
        self.mailbox.send(sender, correlation, encode(ErrorReply.of(error)))

    def _on_gone(self, sender: Sender) -> None:
        self._admin.on_sender_gone(sender)
        if sender.is_remote:
            self._workers.on_token(sender)
            self.access.on_sender_gone(sender)
        self._registrations.on_sender_gone(sender)
        self._outgoing.on_sender_gone(sender)
        self._incoming.on_sender_gone(sender)
        self._sessions.on_sender_gone(sender)
        self._waits.on_sender_gone(sender)
