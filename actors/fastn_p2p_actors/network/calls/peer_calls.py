"""Calls of peers: serve each, or hold it until its binding is registered, and send the outcome to the peer daemon."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from fastn_p2p_client.errors import Overloaded, P2PError
from fastn_p2p_client.request_id import safe_id

from ..connections.connection import PeerConnection
from ..connections.network_path import NetworkPath
from ..connections.payload_memory import Account
from ..connections.session_handshake import run_to_end
from ..connections.step_budget import ConnectionSteps
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import RegisteredBinding, Registry
from ..wire import messages as wire
from .incoming import IncomingCalls
from .served_call import ServedCall

_MAX_CANCELLED_EARLY: Final = 1024
"""Cancelled calls of one connection that are remembered until their requests arrive."""
_CANCELS_PER_STEP: Final = 8
"""Calls that are cancelled in one step of ``StepBudget``: each takes some 20 us."""


class _RemoteCaller:
    """``ReplyTarget`` for a call of a peer."""

    __slots__ = ("connection", "id", "number")

    def __init__(self, connection: PeerConnection, number: int, request_id: tuple[str, bytes]) -> None:
        self.connection = connection
        self.number = number
        self.id = request_id

    @property
    def path(self) -> NetworkPath:
        return self.connection.path()

    @property
    def account(self) -> Account:
        return self.connection.memory.account

    def on_reply(self, payload: bytes) -> None:
        requests = self.connection.requests
        requests.serving.pop(self.number, None)
        requests.answer(wire.Reply(self.number), payload)

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        self._remove()
        self.connection.requests.answer(wire.ApplicationErrorReply(self.number, kind, message), payload)

    def on_error(self, error: P2PError) -> None:
        self._remove()
        self.connection.requests.answer(wire.ErrorReply(self.number, error.code, error.fields()))

    def on_rejected(self, error: P2PError) -> None:
        self._remove()
        self.connection.requests.refuse(self.number, error)

    def _remove(self) -> None:
        self.connection.requests.serving.pop(self.number, None)


class _HeldRequest:
    """Request of a peer that waits for a registration. Its connection lists it among the calls that are served."""

    __slots__ = ("_size", "account", "payload", "request", "reserved")

    @property
    def source(self) -> bytes:
        """Key of the caller; empty once it was dropped."""
        return self.request.source if self.request is not None else b""

    def __init__(self, account: Account, request: wire.Request, payload: bytes) -> None:
        self.account = account
        self.request: wire.Request | None = request
        self.payload = payload
        self.reserved = 0
        self._size = account.budget.call_cost + len(request.target) + len(payload)

    def reserve(self) -> Overloaded | None:
        """Reserve memory for it. Return an error if too much is reserved already."""
        overload = self.account.reserve(self._size)
        if overload is None:
            self.reserved = self._size
        return overload

    def cancel(self) -> None:
        """Drop it and release its memory at once: its retry may come seconds later."""
        self.request, self.payload = None, b""
        self.account.release(self.reserved)
        self.reserved = 0


class PeerCalls:
    """Calls of peers, by their connection: ``ConnectionRequests`` keeps those that have no outcome yet.

    Args:
        incoming: serves them.
        registry: finds bindings.
        grace: holds calls whose binding is not registered yet.
    """

    def __init__(self, incoming: IncomingCalls, registry: Registry, grace: RegistrationGrace) -> None:
        self._incoming = incoming
        self._registry = registry
        self._grace = grace

    def on_request(self, connection: PeerConnection, request: wire.Request, payload: bytes) -> None:
        """Serve a peer's call, or hold it until its binding is registered."""
        requests = connection.requests
        if connection.closed or request.id in requests.serving:
            return  # no caller waits, or only the first call with this id is answered
        if request.id in requests.cancelled_early:
            del requests.cancelled_early[request.id]
            return
        origin = _RemoteCaller(connection, request.id, safe_id(request.request_id, request.number, request.call_id))
        if self._grace.is_open() and not self._is_registered(request):
            self._hold_request(origin, request, payload)
            return
        served = self._incoming.serve(origin, request.source, request.target, request, payload)
        if served is not None:
            requests.serving[request.id] = served
            if self._registry.stateless and served.server is not None:
                name = served.server.binding.identity.name
                self._registry.stateless.notify(connection, name, request.target, request.protocol, request.instance)

    def _is_registered(self, request: wire.Request) -> bool:
        found = self._registry.find(request.target, request.protocol, request.instance)
        return isinstance(found, RegisteredBinding)

    def _hold_request(self, origin: _RemoteCaller, request: wire.Request, payload: bytes) -> None:
        connection = origin.connection
        held = _HeldRequest(connection.memory.account, request, payload)
        overload = held.reserve()
        if overload is not None:
            origin.on_error(overload)
            return
        connection.requests.serving[request.id] = held
        self._grace.retry_later(
            partial(self._retry_held, connection, held, self._grace.remaining_ms(request.deadline_ms))
        )

    def _retry_held(self, connection: PeerConnection, held: _HeldRequest, left: Callable[[], int]) -> None:
        request, payload = held.request, held.payload
        serving = connection.requests.serving
        if request is not None and serving.get(request.id) is held:
            del serving[request.id]
            held.cancel()
            self.on_request(connection, replace(request, deadline_ms=left()), payload)

    def on_cancel(self, connection: PeerConnection, number: int) -> None:
        """Cancel a peer's call. Remember the id if its request, on a stream of its own, has not arrived yet."""
        served = connection.requests.serving.pop(number, None)
        if served is not None:
            served.cancel()
            return
        early = connection.requests.cancelled_early
        early[number] = None
        if len(early) > _MAX_CANCELLED_EARLY:
            del early[next(iter(early))]

    def on_connection_closed(self, connection: PeerConnection) -> None:
        """Cancel the calls of this connection. Retryable ones continue: their callers will send them again."""
        calls: list[ServedCall] = []
        for served in connection.requests.serving.values():
            if isinstance(served, ServedCall):
                calls.append(served)
            else:
                served.cancel()
        connection.requests.serving.clear()
        _end_calls(calls[:_CANCELS_PER_STEP])
        if len(calls) > _CANCELS_PER_STEP:
            run_to_end(_end_in_steps(calls[_CANCELS_PER_STEP:], connection.steps))


async def _end_in_steps(calls: list[ServedCall], steps: ConnectionSteps) -> None:
    """End many calls: there may be 8,192."""
    for start in range(0, len(calls), _CANCELS_PER_STEP):
        if not steps.spend():
            await steps.wait()
        _end_calls(calls[start : start + _CANCELS_PER_STEP])


def _end_calls(calls: list[ServedCall]) -> None:
    for served in calls:
        if served.is_retryable:
            served.abandon()
        else:
            served.cancel()
