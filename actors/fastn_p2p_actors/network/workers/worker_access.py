"""Access of workers: which token serves which binding, and which messages a worker may send."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastn_p2p_client.errors import Forbidden, TokenRefused
from fastn_p2p_client.ipc.messages import (
    Ack,
    ApplicationErrorReply,
    CallUnknown,
    EndOfStream,
    ErrorReply,
    RedeemRoute,
    RegisterBinding,
    ResetStream,
    SessionData,
    SessionOpened,
    ShareMemory,
    StopSending,
    UnregisterBinding,
    WindowUpdate,
)
from fastn_p2p_client.worker_token import token_hash

from ...runtime.mailbox import Sender
from ..admin_messages import WorkerBinding

_ANSWERS: Final = frozenset(
    {
        ApplicationErrorReply,
        CallUnknown,
        ErrorReply,
        SessionOpened,
        SessionData,
        EndOfStream,
        Ack,
        WindowUpdate,
        ResetStream,
        StopSending,
        ShareMemory,  # gets no answer: sessions of workers share no memory
    }
)
"""Answers to calls, and messages of sessions. They count only for what was delivered to the same connection."""

log = logging.getLogger(__name__)


class RemoteWorker(NamedTuple):
    """Worker that has registered."""

    binding: tuple[str, str, str]
    """Identity, protocol and instance."""
    hash: bytes
    """Hash of its token."""


class WorkerAccess:
    """Bindings that workers may serve, and the workers that do.

    Args:
        end: ends a worker's connection.
    """

    def __init__(self, end: Callable[[Sender], None]) -> None:
        self._end = end
        self._bindings: dict[tuple[str, str, str], WorkerBinding] = {}
        self._workers: dict[Sender, tuple[RemoteWorker, RegisterBinding]] = {}
        self._sessions: set[Sender] = set()
        """Connections for one session each."""

    def replace(self, bindings: tuple[WorkerBinding, ...]) -> list[tuple[Sender, RegisterBinding]]:
        """Set all bindings that workers may serve. A worker whose token is gone is disconnected.

        Returns:
            Workers whose access list has changed, with the messages that registered them: register them again.
        """
        before, self._bindings = self._bindings, {each.binding: each for each in bindings}
        changed: list[tuple[Sender, RegisterBinding]] = []
        for sender, (worker, message) in list(self._workers.items()):
            known = self._bindings.get(worker.binding)
            if known is None or worker.hash not in known.hashes:
                log.info("a worker of %s was disconnected: its token was revoked", "/".join(worker.binding))
                self._end(sender)
            elif known.allow != before[worker.binding].allow:
                changed.append((sender, message))
        return changed

    def on_sender_gone(self, sender: Sender) -> None:
        self._workers.pop(sender, None)
        self._sessions.discard(sender)

    def on_session(self, sender: Sender) -> None:
        """Let the connection answer for the one session that it has taken, and do nothing else."""
        self._sessions.add(sender)

    def check(self, sender: Sender, message: Any) -> None:
        """Raise Forbidden if a worker may not send the message."""
        kind = type(message)
        if sender in self._sessions:
            if kind in _ANSWERS:
                return
            raise Forbidden(role="a worker that has taken a session", request=kind.__name__)
        known = self._workers.get(sender)
        if kind is RegisterBinding or (kind is RedeemRoute and known is None):
            return  # its token is looked at next
        if known is not None:
            if kind in _ANSWERS:
                return
            named = kind is UnregisterBinding and (message.identity, message.protocol, message.instance)
            if named == known[0].binding:
                return
        raise Forbidden(role="a worker on another machine", request=kind.__name__)

    def access_of(self, sender: Sender, message: RegisterBinding) -> tuple[str, ...]:
        """Return the access list of the binding for which the worker has shown a token.

        Raises:
            TokenRefused: no such token is valid for the binding, or the connection serves another one.
        """
        named = message.identity, message.protocol, message.instance
        shown, known = token_hash(message.grant), self._bindings.get(named)
        earlier = self._workers.get(sender)
        if known is None or shown not in known.hashes or (earlier is not None and earlier[0].binding != named):
            raise TokenRefused(identity=message.identity, protocol=message.protocol, instance=message.instance)
        self._workers[sender] = RemoteWorker(named, shown), message
        return known.allow
