"""Call that a local process serves: who waits for its outcome, its deadline, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Set
from typing import Final, Protocol

from fastn_p2p_client.errors import Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Call
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT

from ...runtime.mailbox import Sender
from ..connections.network_path import LOCAL, NetworkPath
from ..connections.payload_memory import Account
from ..serving.load_balancer import ServingProcess
from ..wire import messages as wire

DEADLINE_MARGIN: Final = 0.05
"""Seconds before its deadline from which a cancelled call counts as one that has missed it: the caller has a clock of
its own, and often cancels first."""


class ReplyTarget(Protocol):
    """Caller of a call that is served here. It gets exactly one of the four outcomes."""

    @property
    def path(self) -> NetworkPath:
        """Path over which the caller is connected."""
        ...

    @property
    def id(self) -> tuple[str, bytes]:
        """Request id and number, as ``safe_id`` returns them."""
        ...

    @property
    def account(self) -> Account:
        """Account on which memory for the caller is reserved."""
        ...

    def on_reply(self, payload: bytes) -> None:
        """Send the reply."""
        ...

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        """Send the application error that the handler raised."""
        ...

    def on_error(self, error: P2PError) -> None:
        """Send an error of the system."""
        ...

    def on_rejected(self, error: P2PError) -> None:
        """Send an error that precedes every handler: there is no such binding, or it does not admit the caller."""
        ...


class _DisconnectedCaller:
    """``ReplyTarget`` of a retryable call whose connection has ended: all outcomes are dropped.

    It does not refer to the connection, because QUIC keeps its buffers as long as that exists.
    """

    __slots__ = ("account",)

    path = LOCAL
    id = "", b""

    def __init__(self, account: Account) -> None:
        self.account = account

    def on_reply(self, payload: bytes) -> None:
        pass

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        pass

    def on_error(self, error: P2PError) -> None:
        pass

    def on_rejected(self, error: P2PError) -> None:
        pass


class CallCanceller(Protocol):
    """Calls that are being served, as far as one of them uses them."""

    def cancel(self, served: ServedCall) -> None:
        """Stop a call: its caller no longer waits."""
        ...


class ServedCall:
    """Call that a local process is executing, or that waits for one.

    Attributes:
        source, target: keys of the caller and the callee.
        id: request id and number, as ``safe_id`` returns them.
        payload: kept only while the call may be sent to another process.
        account: on which the call and its payload are reserved.
        reserved: bytes reserved there.
        size: bytes of the payload.
        seconds: timeout.
        expires: deadline, in the event loop's time.
        started: when a process got it, in seconds of ``time.monotonic()``; 0 before.
        server: process that has it; None while it waits.
        correlation: id under which that process has it.
        is_abandoned: true if the caller has gone, so no other process gets it.
        denied_by: senders of processes that have answered "call unknown" to a retried call.
        done: true if it has its outcome, or needs none.
    """

    __slots__ = (
        "_calls",
        "account",
        "correlation",
        "denied_by",
        "done",
        "expires",
        "id",
        "is_abandoned",
        "origin",
        "payload",
        "request",
        "reserved",
        "seconds",
        "server",
        "size",
        "source",
        "started",
        "target",
    )  # fmt: skip

    def __init__(
        self,
        calls: CallCanceller,
        origin: ReplyTarget,
        source: bytes,
        target: bytes,
        request: Call | wire.Request,
        payload: bytes,
    ) -> None:
        self._calls = calls
        self.origin = origin
        self.source = source
        self.target = target
        self.request = request
        self.id = origin.id
        self.payload = payload
        self.account = origin.account
        self.reserved = 0
        self.size = len(payload)
        self.is_abandoned = False
        self.seconds = min(request.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        self.expires = 0.0
        self.started = 0.0
        self.server: ServingProcess | None = None
        self.correlation = b""
        self.denied_by: Set[Sender] = frozenset()
        self.done = False

    @property
    def is_retryable(self) -> bool:
        """True if it continues after the end of its connection, because its caller will send it again."""
        return bool(self.request.call_id)

    @property
    def is_own(self) -> bool:
        """True if the identity calls itself, by a program of this daemon."""
        return self.source == self.target and self.origin.path is LOCAL

    def cancel(self) -> None:
        """Stop it: its caller no longer waits."""
        self._calls.cancel(self)

    def reserve(self) -> Overloaded | None:
        """Reserve memory for it until it is answered. Return an error if too much is reserved already."""
        size = self.account.budget.call_cost + (len(self.payload) if self.request.call_id else 0)
        overload = self.account.reserve(size) if size else None
        if overload is None:
            self.reserved = size
        return overload

    def release(self) -> None:
        """Drop the payload and release its memory."""
        self.payload = b""
        if self.reserved:
            self.account.release(self.reserved)
            self.reserved = 0

    def abandon(self) -> None:
        """Let its process finish it, but give it to no other: the caller has gone, and will send it again."""
        self.is_abandoned = True
        self.origin = _DisconnectedCaller(self.account)
        self.payload = b""
        if self.server is None:
            self.done = True
            self.release()
        elif self.reserved:
            cost = self.account.budget.call_cost
            self.account.release(self.reserved - cost)
            self.reserved = cost
