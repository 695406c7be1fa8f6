"""Errors that every process between caller and handler can raise, and the errors that pass after a restart."""

from __future__ import annotations

from .local import DaemonBusy
from .p2p_error import P2PError


class DeadlineExceeded(P2PError):
    """No reply within ``seconds``. The request may have been executed."""

    code = "deadline-exceeded"
    retryable = True
    template = "no reply within {seconds:g} s. It may have been executed"
    seconds: float


class Overloaded(P2PError):
    """A limit is reached. ``what`` says what is limited."""

    code = "overloaded"
    retryable = True
    transient = True
    template = "limit reached: {what} (limit {limit}). Try again more slowly"
    what: str
    limit: int


class StorageUnavailable(P2PError):
    """The database in which the callee keeps ``what`` cannot be used at the moment. Nothing is confirmed.

    Its reason is in the callee's log and status: a caller may be any peer.
    """

    code = "storage-unavailable"
    retryable = True
    transient = True
    template = "{what} cannot be used at the moment, because its database does not answer. Nothing is confirmed"
    see = ". Try again later; its owner's `fastn-p2p status` says why"
    what: str


class ConnectionLost(P2PError):
    """A process or connection ended with the call in flight. The call may have been executed."""

    code = "connection-lost"
    retryable = False
    transient = True
    template = "{what} ended with a call or session in flight. A call may have been executed"
    what: str


class StreamReset(P2PError):
    """The peer ended a session early. ``reset_code`` is a code of the protocol, or one of ``limits``."""

    code = "stream-reset"
    transient = True
    template = "the peer ended the session early (code {reset_code}). The data that was sent or received is incomplete"
    reset_code: int


def is_transient(error: P2PError, connected_before: bool) -> bool:
    """Return whether ``error`` passes by itself, so that the same request may succeed a moment later.

    Args:
        connected_before: the same callee has answered this program before. Until then only a broken connection and a
            busy process are transient: the other errors mean a wrong name or address. Afterwards they are seen during
            a restart.
    """
    at_once = isinstance(error, ConnectionLost | DaemonBusy | Overloaded | StreamReset)
    return error.transient and (connected_before or at_once)
