"""Requests for whoever serves on this machine, from peers and from local programs: each ends in exactly one outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from msgspec.structs import replace

from fastn_p2p_client.deadlines import Deadlines
from fastn_p2p_client.errors import ConnectionLost, DeadlineExceeded, Denied, Overloaded, P2PError
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT, MAX_CALLS_PER_BINDING
from fastn_p2p_client.messages import ApplicationFailure, Call, Cancel, Deliver, Failure, Reply, encode
from fastn_p2p_client.trace import TRACING, mark

from ..mailbox import Mailbox, Sender
from .address_book import AddressBook
from .connection import PeerConnection
from .parking import Parking
from .registry import Binding, Registry, Server
from .way import Way
from .wire import WireFailure, WireRefusal, WireReply, WireRequest

__all__ = ["Origin", "Requests"]

_CANCEL: Final = encode(Cancel())
_OURS: Final = 1 << 63
"""Set in the ids that we choose: whoever serves also asks us, under ids of its own, over the same connection."""
_MAX_FORSAKEN: Final = 1024


class Origin(Protocol):
    """Who waits for a request that is being served here."""

    @property
    def way(self) -> Way:
        """How they are connected."""
        ...

    def on_reply(self, payload: bytes) -> None: ...
    def on_refusal(self, kind: str, message: str, payload: bytes) -> None: ...
    def on_failure(self, error: P2PError) -> None: ...


class _RemoteOrigin:
    """Another daemon waits."""

    __slots__ = ("connection", "number")

    def __init__(self, connection: PeerConnection, number: int) -> None:
        self.connection = connection
        self.number = number

    @property
    def way(self) -> Way:
        return self.connection.way()

    def on_reply(self, payload: bytes) -> None:
        self._forget()
        self.connection.answer(WireReply(self.number), payload)

    def on_refusal(self, kind: str, message: str, payload: bytes) -> None:
        self._forget()
        self.connection.answer(WireRefusal(self.number, kind, message), payload)

    def on_failure(self, error: P2PError) -> None:
        self._forget()
        self.connection.answer(WireFailure(self.number, error.code, error.fields()))

    def _forget(self) -> None:
        self.connection.serving.pop(self.number, None)


class _Served:
    """A request that a process of this machine is working on."""

    __slots__ = ("binding", "correlation", "origin", "seconds", "server", "started")

    def __init__(self, origin: Origin, server: Server, correlation: bytes, started: float, seconds: float) -> None:
        self.origin = origin
        self.server = server
        self.binding = server.binding
        self.correlation = correlation
        self.started = started
        self.seconds = seconds


class Requests:
    """What is being served at the moment."""

    def __init__(self, mailbox: Mailbox, registry: Registry, book: AddressBook, parking: Parking) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox = mailbox
        self._registry = registry
        self._book = book
        self._parking = parking
        self._deadlines: Deadlines[_Served] = Deadlines(self._loop, self._expire)
        self._next_number = 0
        self._served: dict[bytes, _Served] = {}
        self._idle: asyncio.Event | None = None

    def close(self) -> None:
        self._deadlines.close()

    async def drained(self) -> None:
        """Returns when nothing is being served."""
        self._idle = asyncio.Event()
        if self._served:
            await self._idle.wait()

    # ── peers ────────────────────────────────────────────────────────────────────────────────────

    def on_request(self, connection: PeerConnection, request: WireRequest, payload: bytes) -> None:
        if connection.closed or request.id in connection.serving:
            return  # nobody waits, or the first one with this id is answered
        if request.id in connection.forsaken:
            del connection.forsaken[request.id]
            return
        origin = _RemoteOrigin(connection, request.id)
        found = self._registry.find(request.target, request.protocol, request.instance)
        if not isinstance(found, Binding) and self._parking.may_park():
            self._park_request(connection, request, payload)
            return
        connection.serving[request.id] = self.serve(origin, request.source, request.target, request, payload)
        if connection.serving[request.id] is None:
            del connection.serving[request.id]

    def _park_request(self, connection: PeerConnection, request: WireRequest, payload: bytes) -> None:
        left = self._parking.countdown(request.deadline_ms)

        def again() -> None:
            if connection.serving.get(request.id) is taken_back:
                del connection.serving[request.id]
                self.on_request(connection, replace(request, deadline_ms=left()), payload)

        def taken_back() -> None:
            """Not among those that are being served any more: that is all."""

        connection.serving[request.id] = taken_back
        self._parking.park(again)

    def on_cancel(self, connection: PeerConnection, number: int) -> None:
        take_back = connection.serving.pop(number, None)
        if take_back is not None:
            take_back()
            return
        connection.forsaken[number] = None
        if len(connection.forsaken) > _MAX_FORSAKEN:
            del connection.forsaken[next(iter(connection.forsaken))]

    def on_connection_closed(self, connection: PeerConnection) -> None:
        """Nobody waits for the requests that came over it."""
        serving, connection.serving = connection.serving, {}
        for take_back in serving.values():
            take_back()

    # ── whoever serves ───────────────────────────────────────────────────────────────────────────

    def serve(
        self, origin: Origin, source: bytes, target: bytes, request: Call | WireRequest, payload: bytes
    ) -> Callable[[], object] | None:
        """Hand a request to whoever serves it; returns what takes it back, or None when it was refused."""
        if TRACING:
            mark("4 network of the callee: request")
        protocol, instance, deadline_ms = request.protocol, request.instance, request.deadline_ms
        binding = self._registry.find(target, protocol, instance)
        if not isinstance(binding, Binding):
            origin.on_failure(binding)
            return None
        if not binding.access.admits(source):
            origin.on_failure(Denied(peer=binding.identity.key.id52, protocol=protocol, instance=instance))
            return None
        server = binding.pick() if binding.in_flight < MAX_CALLS_PER_BINDING else None
        if server is None:
            limit = min(MAX_CALLS_PER_BINDING, sum(each.limit for each in binding.servers))
            origin.on_failure(Overloaded(what=f"calls in flight at {protocol}", limit=limit))
            return None
        self._next_number = number = self._next_number + 1
        correlation = (_OURS | number).to_bytes(8, "big")
        petname, identity = self._book.name_of(source), binding.identity.name
        command, call_id = request.command, request.call_id
        deliver = Deliver(source, petname, identity, protocol, instance, deadline_ms, command, call_id, *origin.way)
        header = encode(deliver)
        if not self._mailbox.send(server.sender, correlation, header, payload):
            origin.on_failure(
                ConnectionLost(what=f"the process that serves {protocol}")
                if server.sender.gone
                else Overloaded(what=f"requests queued for {protocol}", limit=MAX_CALLS_PER_BINDING)
            )
            return None
        seconds = min(deadline_ms / 1000, MAX_CALL_TIMEOUT)
        served = _Served(origin, server, correlation, time.monotonic(), seconds)
        server.in_flight += 1
        binding.in_flight += 1
        binding.calls += 1
        self._served[correlation] = served
        self._deadlines.add(served, self._loop.time() + seconds)
        return lambda: self._take_back(served)

    def on_answer(
        self, sender: Sender, correlation: bytes, answer: Reply | ApplicationFailure | Failure, payload: bytes
    ) -> None:
        """Whoever serves has answered."""
        if TRACING:
            mark("6 network of the callee: answer")
        served = self._served.get(correlation)
        if served is None or served.server.sender is not sender:
            return  # too late, or somebody else's
        self._finish(served)
        binding = served.binding
        binding.seconds.append(time.monotonic() - served.started)  # the loop's own clock has whole milliseconds
        if isinstance(answer, Reply):
            served.origin.on_reply(payload)
            return
        binding.errors += 1
        if isinstance(answer, ApplicationFailure):
            served.origin.on_refusal(answer.kind, answer.message, payload)
        else:
            served.origin.on_failure(answer.error())

    def on_sender_gone(self, sender: Sender) -> None:
        """A local process has ended: what it was serving has failed."""
        for served in [served for served in self._served.values() if served.server.sender is sender]:
            self._finish(served)
            served.binding.errors += 1
            served.origin.on_failure(ConnectionLost(what=f"the process that serves {served.binding.protocol}"))

    def _finish(self, served: _Served) -> None:
        del self._served[served.correlation]
        self._deadlines.discard(served)
        if self._idle is not None and not self._served:
            self._idle.set()
        served.binding.in_flight -= 1
        served.server.in_flight -= 1

    def _take_back(self, served: _Served) -> None:
        if served.correlation in self._served:
            self._finish(served)
            self._mailbox.send(served.server.sender, served.correlation, _CANCEL)

    def _expire(self, served: _Served) -> None:
        served.binding.errors += 1
        self._take_back(served)
        served.origin.on_failure(DeadlineExceeded(seconds=round(served.seconds, 3)))
