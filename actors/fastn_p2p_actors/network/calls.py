"""Calls: from local programs to peers, and from peers to whoever serves. Each ends in exactly one outcome.

A call that arrives runs through here without a task of its own unless its peer has to be found first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from fastn_p2p_client.deadlines import Deadlines
from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    CredentialError,
    DeadlineExceeded,
    Denied,
    IdentityOffline,
    InternalError,
    NoIdentityOnline,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT, MAX_CALLS_PER_BINDING, MAX_CALLS_PER_CLIENT, MAX_NAME
from fastn_p2p_client.messages import (
    ApplicationFailure,
    Call,
    Cancel,
    Deliver,
    Failure,
    Reply,
    encode,
)
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket
from fastn_p2p_client.trace import TRACING, mark

from ..credentials import (
    Delegation,
    PeerRecord,
    check_validity,
    read_record,
    verify_delegation,
    verify_record,
)
from ..mailbox import Mailbox, Sender
from .address_book import AddressBook
from .connection import PeerConnection
from .pool import Pool
from .registry import Binding, OnlineIdentity, Registry
from .resolvers import Candidate, Resolver, candidates
from .wire import WireFailure, WireRefusal, WireReply, WireRequest

__all__ = ["Calls"]

log = logging.getLogger(__name__)

_REPLY: Final = encode(Reply())
_CANCEL: Final = encode(Cancel())
_OURS: Final = 1 << 63
"""Set in the ids that we choose: whoever serves also asks us, under ids of its own, over the same connection."""
_PROOF_TIMEOUT: Final = 5.0
_MAX_NAMES_CACHED: Final = 4096
_MAX_FORSAKEN: Final = 1024
_SETTLING: Final = 2.0
"""Seconds after the start of this process, or the end of one that served, in which whoever serves registers (again):
what comes for an identity or a binding that is not known waits that long for it."""
_MAX_PARKED: Final = 4096


class _Origin(Protocol):
    """Who waits for a request that is being served here."""

    def on_reply(self, payload: bytes) -> None: ...
    def on_refusal(self, kind: str, message: str, payload: bytes) -> None: ...
    def on_failure(self, error: P2PError) -> None: ...


class _LocalCall:
    """A call of a local program, until its one outcome."""

    __slots__ = ("_calls", "cancel", "correlation", "done", "looking_for", "seconds", "sender", "state")

    def __init__(self, calls: Calls, sender: Sender, state: _ClientState, correlation: bytes, seconds: float) -> None:
        self._calls = calls
        self.sender = sender
        self.state = state
        self.correlation = correlation
        self.seconds = seconds
        self.done = False
        self.looking_for = ""
        """The peer, while there is no connection to it: nothing has been executed."""
        self.cancel: Callable[[], object] | None = None
        """Takes the call back from wherever it is now."""

    def on_reply(self, payload: bytes) -> None:
        if TRACING:
            mark("7 network of the caller: reply")
        self._finish(_REPLY, payload)

    def on_refusal(self, kind: str, message: str, payload: bytes) -> None:
        self._finish(encode(ApplicationFailure(kind, message)), payload)

    def on_failure(self, error: P2PError) -> None:
        self._finish(encode(Failure.of(error)), b"")

    def abandon(self) -> None:
        """Nobody wants the outcome: take it back without a word."""
        if self._close():
            self._take_back()

    def expire(self) -> None:
        if not self.done:
            self._take_back()
            if self.looking_for:
                self.on_failure(PeerUnreachable(peer=self.looking_for, reason="there was no connection in time"))
            else:
                self.on_failure(DeadlineExceeded(seconds=round(self.seconds, 3)))

    def _take_back(self) -> None:
        cancel, self.cancel = self.cancel, None
        if cancel is not None:
            cancel()

    def _finish(self, header: bytes, payload: bytes) -> None:
        if self._close():
            self._calls.mailbox.send(self.sender, self.correlation, header, payload)

    def _close(self) -> bool:
        if self.done:
            return False
        self.done = True
        self.state.pop(self.correlation, None)
        self._calls.forget(self)
        return True


class _ClientState(dict[bytes, _LocalCall]):
    """The calls in flight of one local program."""


class _RemoteOrigin:
    """Another daemon waits."""

    __slots__ = ("connection", "number")

    def __init__(self, connection: PeerConnection, number: int) -> None:
        self.connection = connection
        self.number = number

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

    __slots__ = ("binding", "correlation", "origin", "seconds", "started")

    def __init__(self, origin: _Origin, binding: Binding, correlation: bytes, started: float, seconds: float) -> None:
        self.origin = origin
        self.binding = binding
        self.correlation = correlation
        self.started = started
        self.seconds = seconds


class Calls:
    """Routes calls; the pool's and the mailbox's events about them end here."""

    def __init__(
        self,
        mailbox: Mailbox,
        registry: Registry,
        book: AddressBook,
        resolvers: Sequence[Resolver],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.mailbox = mailbox
        self._registry = registry
        self._book = book
        self._resolvers = resolvers
        self._wall = wall
        self.pool: Pool | None = None
        self.deadlines: Deadlines[_LocalCall | _Served] = Deadlines(self._loop, self._expire)
        self._next_number = 0
        self._served: dict[bytes, _Served] = {}
        self._routes: dict[bytes, PeerConnection] = {}
        self._keys: dict[str, bytes] = {}
        self._keys_generation = -1
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained: asyncio.Future[None] | None = None
        self._settled_at = self._loop.time() + _SETTLING
        self._parked: list[Callable[[], None]] = []

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.deadlines.close()

    async def drained(self) -> None:
        """Returns when nothing is in flight. Nobody will register any more."""
        self._settled_at = self._loop.time()
        self.registered()
        if len(self.deadlines):
            self._drained = self._loop.create_future()
            await self._drained

    def forget(self, what: _LocalCall | _Served) -> None:
        """It has its outcome."""
        self.deadlines.discard(what)
        if self._drained is not None and not len(self.deadlines) and not self._drained.done():
            self._drained.set_result(None)

    # ── from local programs ──────────────────────────────────────────────────────────────────────

    def on_call(self, sender: Sender, correlation: bytes, call: Call, payload: bytes) -> None:
        if TRACING:
            mark("2 network of the caller: call")
        state = sender.state
        if not isinstance(state, _ClientState):
            state = sender.state = _ClientState()
        try:
            if correlation in state:
                raise BadMessage(reason="a call with this id is in flight already")
            if len(state) >= MAX_CALLS_PER_CLIENT:
                raise Overloaded(what="calls in flight from this program", limit=MAX_CALLS_PER_CLIENT)
            if len(call.protocol) > MAX_NAME or len(call.instance) > MAX_NAME:
                check_name(call.protocol, "a protocol")
                check_name(call.instance, "an instance")
        except P2PError as error:
            self.mailbox.send(sender, correlation, encode(Failure.of(error)))
            return
        seconds = min(call.deadline_ms / 1000, MAX_CALL_TIMEOUT)
        mine = state[correlation] = _LocalCall(self, sender, state, correlation, seconds)
        self.deadlines.add(mine, self._loop.time() + seconds)
        self._route(mine, call, payload)

    def _route(self, mine: _LocalCall, call: Call, payload: bytes) -> None:
        try:
            source = self._registry.chosen(call.identity)
            target = self._target(call.peer)
        except (IdentityOffline, NoIdentityOnline) as error:
            self._park(mine, call, payload, error)
            return
        except P2PError as error:
            mine.on_failure(error)
            return
        if self._registry.by_key(target) is not None:
            mine.cancel = self._serve(mine, source.raw, target, call.protocol, call.instance, call.deadline_ms, payload)
            return
        connection = self._routes.get(target)
        if connection is not None and connection.introduced.get(target, 0) > self._wall():
            self._send(mine, connection, source, target, call, payload, call.deadline_ms)
        else:
            mine.looking_for = _shown(target, call.peer)
            task = self._loop.create_task(self._find_and_send(mine, source, target, call, payload))
            mine.cancel = task.cancel
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def unsettled(self) -> None:
        """A process that served has ended, and its successor registers soon."""
        self._settled_at = self._loop.time() + _SETTLING

    def registered(self) -> None:
        """Somebody has come online or serves something: what waits for that has another turn."""
        parked, self._parked = self._parked, []
        for again in parked:
            again()

    def _park(self, mine: _LocalCall, call: Call, payload: bytes, error: P2PError) -> None:
        """Give the call another turn when somebody registers, or end it with ``error`` if that is not expected."""
        if not self._may_park():
            mine.on_failure(error)
            return
        left = self._countdown(call.deadline_ms)

        def again() -> None:
            if not mine.done:
                self._route(mine, replace(call, deadline_ms=left()), payload)

        self._parked.append(again)

    def _may_park(self) -> bool:
        if self._loop.time() >= self._settled_at or len(self._parked) >= _MAX_PARKED:
            return False
        if not self._parked:
            self._loop.call_at(self._settled_at, self.registered)
        return True

    def _countdown(self, deadline_ms: int) -> Callable[[], int]:
        """What is left of a deadline, whenever asked; at least 1 ms."""
        started = self._loop.time()
        return lambda: max(1, deadline_ms - int((self._loop.time() - started) * 1000))

    def on_cancel(self, sender: Sender, correlation: bytes) -> None:
        if isinstance(sender.state, _ClientState):
            mine = sender.state.get(correlation)
            if mine is not None:
                mine.abandon()

    def _target(self, peer: str) -> bytes:
        if self._keys_generation != self._book.generation or len(self._keys) > _MAX_NAMES_CACHED:
            self._keys.clear()
            self._keys_generation = self._book.generation
        key = self._keys.get(peer)
        if key is None:
            key = self._parse_peer(peer)
            if not Ticket.looks_like(peer):  # a ticket ends some day
                self._keys[peer] = key
        return key

    def _parse_peer(self, peer: str) -> bytes:
        entry = self._book.by_name(peer)
        if entry is not None:
            return bytes(entry.key)
        if Ticket.looks_like(peer):
            return bytes(verify_record(Ticket(peer).record_bytes, now=self._wall()).identity)
        if len(peer) < 40:  # a name, not a mistyped ID52
            raise PeerUnknown(peer=peer)
        return bytes(PublicKey(peer))

    def _send(
        self,
        mine: _LocalCall,
        connection: PeerConnection,
        source: OnlineIdentity,
        target: bytes,
        call: Call,
        payload: bytes,
        deadline_ms: int,
    ) -> None:
        try:
            number = connection.request(mine, source.raw, target, call.protocol, call.instance, deadline_ms, payload)
        except P2PError as error:
            mine.on_failure(error)
            return
        mine.cancel = lambda: connection.cancel(number)

    async def _find_and_send(
        self, mine: _LocalCall, source: OnlineIdentity, target: bytes, call: Call, payload: bytes
    ) -> None:
        left = self._countdown(call.deadline_ms)
        try:
            connection = await self._reach(target, call.peer)
        except PeerOffline as error:
            self._park(mine, call, payload, error)
            return
        except P2PError as error:
            mine.on_failure(error)
            return
        except asyncio.CancelledError:
            mine.on_failure(ConnectionLost(what="the daemon's network process"))
            raise
        except Exception:
            log.exception("finding %s", call.peer[:64])
            mine.on_failure(InternalError(reason="the network process could not find the peer; its log says why"))
            return
        if mine.done:
            return
        mine.looking_for = ""
        self._send(mine, connection, source, target, call, payload, left())

    # ── the way to a peer ────────────────────────────────────────────────────────────────────────

    async def _reach(self, target: bytes, peer: str) -> PeerConnection:
        """A connection over which ``target`` has been proved to speak."""
        known = candidates(target, [*self._ticket_resolver(peer), *self._resolvers])
        if not known:
            raise PeerUnknown(peer=_shown(target, peer))
        reasons: list[str] = []
        for candidate in known:
            if self.pool is not None and candidate.address.endpoint == self.pool.own_endpoint:
                continue  # it is this daemon's own identity, and not online
            try:
                connection = await self._try(target, candidate)
                if connection.closed:  # while this task waited for its turn
                    raise ConnectionLost(what="the connection to the peer")
            except P2PError as error:
                reasons.append(getattr(error, "reason", "") or str(error))
                continue
            self._routes[target] = connection
            return connection
        if not reasons:
            raise PeerOffline(peer=_shown(target, peer))
        raise PeerUnreachable(peer=_shown(target, peer), reason=reasons[0])

    def _ticket_resolver(self, peer: str) -> list[Resolver]:
        return [_TicketResolver(peer)] if Ticket.looks_like(peer) else []

    async def _try(self, target: bytes, candidate: Candidate) -> PeerConnection:
        if self.pool is None:
            raise PeerUnreachable(peer=PublicKey(target).id52, reason="the network process is stopping")
        connection = await self.pool.connect(candidate.address)
        delegation, now = candidate.delegation, self._wall()
        try:
            check_validity(delegation, now)
            self._book.epochs.observe(delegation.key, delegation.lineage, delegation.epoch)
            self._retire_others(delegation)
            connection.introduce(delegation)
        except (CredentialError, BadMessage):
            if connection.introduced.get(target, 0) > now:
                return connection
            try:
                async with asyncio.timeout(_PROOF_TIMEOUT):
                    await connection.want(target)
            except TimeoutError:
                raise PeerUnreachable(
                    peer=PublicKey(target).id52, reason="its endpoint no longer speaks for it"
                ) from None
        return connection

    # ── from peers ───────────────────────────────────────────────────────────────────────────────

    def check_introduction(self, connection: PeerConnection, blob: bytes) -> Delegation:
        """A peer's identity shows itself over a connection. Raises CredentialError or BadMessage."""
        delegation = verify_delegation(blob, now=self._wall(), endpoint=connection.endpoint, epochs=self._book.epochs)
        self._retire_others(delegation)
        route = self.pool.open_to(connection.endpoint) if self.pool is not None else None
        if route is not None and route.ready.done():
            route.introduce(delegation)
        self._routes[delegation.identity] = route or connection
        return delegation

    def _retire_others(self, delegation: Delegation) -> None:
        """It may be the first of a new transport key: the one before speaks no more, also where it was heard before."""
        if self.pool is not None:
            for connection in self.pool.all():
                connection.retire(delegation)

    def introduction_for(self, identity: bytes) -> bytes | None:
        found = self._registry.by_key(identity)
        return found.delegation if found is not None else None

    def on_request(self, connection: PeerConnection, request: WireRequest, payload: bytes) -> None:
        if connection.closed or request.id in connection.serving:
            return  # nobody waits, or the first one with this id is answered
        if request.id in connection.forsaken:
            del connection.forsaken[request.id]
            return
        origin = _RemoteOrigin(connection, request.id)
        found = self._registry.find(request.target, request.protocol, request.instance)
        if not isinstance(found, Binding) and self._may_park():
            self._park_request(connection, request, payload)
            return
        connection.serving[request.id] = self._serve(
            origin,
            request.source,
            request.target,
            request.protocol,
            request.instance,
            request.deadline_ms,
            payload,
        )
        if connection.serving[request.id] is None:
            del connection.serving[request.id]

    def _park_request(self, connection: PeerConnection, request: WireRequest, payload: bytes) -> None:
        left = self._countdown(request.deadline_ms)

        def again() -> None:
            if connection.serving.get(request.id) is taken_back:
                del connection.serving[request.id]
                self.on_request(connection, replace(request, deadline_ms=left()), payload)

        def taken_back() -> None:
            """Not among those that are being served any more: that is all."""

        connection.serving[request.id] = taken_back
        self._parked.append(again)

    def on_request_cancelled(self, connection: PeerConnection, number: int) -> None:
        take_back = connection.serving.pop(number, None)
        if take_back is not None:
            take_back()
            return
        connection.forsaken[number] = None
        if len(connection.forsaken) > _MAX_FORSAKEN:
            del connection.forsaken[next(iter(connection.forsaken))]

    def on_superseded(self, connection: PeerConnection, by: PeerConnection) -> None:
        """Calls from now on take the other one."""
        for target, value in self._routes.items():
            if value is connection:
                self._routes[target] = by

    def on_connection_closed(self, connection: PeerConnection) -> None:
        for target in [key for key, value in self._routes.items() if value is connection]:
            del self._routes[target]
        serving, connection.serving = connection.serving, {}
        for take_back in serving.values():
            take_back()

    # ── serving ──────────────────────────────────────────────────────────────────────────────────

    def _serve(
        self,
        origin: _Origin,
        source: bytes,
        target: bytes,
        protocol: str,
        instance: str,
        deadline_ms: int,
        payload: bytes,
    ) -> Callable[[], object] | None:
        """Hand a request to whoever serves it; returns what takes it back, or None when it was refused."""
        if TRACING:
            mark("4 network of the callee: request")
        binding = self._registry.find(target, protocol, instance)
        if not isinstance(binding, Binding):
            origin.on_failure(binding)
            return None
        if not binding.access.admits(source):
            origin.on_failure(Denied(peer=binding.identity.key.id52, protocol=protocol, instance=instance))
            return None
        if binding.in_flight >= MAX_CALLS_PER_BINDING:
            origin.on_failure(Overloaded(what=f"calls in flight at {protocol}", limit=MAX_CALLS_PER_BINDING))
            return None
        self._next_number = number = self._next_number + 1
        correlation = (_OURS | number).to_bytes(8, "big")
        header = encode(
            Deliver(source, self._book.name_of(source), binding.identity.name, protocol, instance, deadline_ms)
        )
        if not self.mailbox.send(binding.sender, correlation, header, payload):
            origin.on_failure(
                ConnectionLost(what=f"the process that serves {protocol}")
                if binding.sender.gone
                else Overloaded(what=f"requests queued for {protocol}", limit=MAX_CALLS_PER_BINDING)
            )
            return None
        seconds = min(deadline_ms / 1000, MAX_CALL_TIMEOUT)
        served = _Served(origin, binding, correlation, time.monotonic(), seconds)
        binding.in_flight += 1
        binding.calls += 1
        self._served[correlation] = served
        self.deadlines.add(served, self._loop.time() + seconds)
        return lambda: self._take_back(served)

    def on_answer(
        self, sender: Sender, correlation: bytes, answer: Reply | ApplicationFailure | Failure, payload: bytes
    ) -> None:
        """Whoever serves has answered."""
        if TRACING:
            mark("6 network of the callee: answer")
        served = self._served.get(correlation)
        if served is None or served.binding.sender is not sender:
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
        """A local process has ended: its own calls are abandoned, what it was serving has failed."""
        if isinstance(sender.state, _ClientState):
            for mine in list(sender.state.values()):
                mine.abandon()
        for served in [served for served in self._served.values() if served.binding.sender is sender]:
            self._finish(served)
            served.binding.errors += 1
            served.origin.on_failure(ConnectionLost(what=f"the process that serves {served.binding.protocol}"))

    def _finish(self, served: _Served) -> None:
        del self._served[served.correlation]
        self.forget(served)
        served.binding.in_flight -= 1

    def _take_back(self, served: _Served) -> None:
        if served.correlation in self._served:
            self._finish(served)
            self.mailbox.send(served.binding.sender, served.correlation, _CANCEL)

    def _expire(self, what: _LocalCall | _Served) -> None:
        if isinstance(what, _LocalCall):
            what.expire()
        else:
            what.binding.errors += 1
            self._take_back(what)
            what.origin.on_failure(DeadlineExceeded(seconds=round(what.seconds, 3)))


def _shown(target: bytes, peer: str) -> str:
    """What errors call a peer: as the caller did, but a ticket is too long."""
    return peer if len(peer) <= MAX_NAME else PublicKey(target).id52


class _TicketResolver:
    """The record inside a ticket that a caller gave instead of a name."""

    def __init__(self, text: str) -> None:
        self._record = Ticket(text).record_bytes

    def records_of(self, key: bytes) -> list[PeerRecord]:
        return [read_record(self._record)]
