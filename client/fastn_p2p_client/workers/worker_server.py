"""Handlers of one binding on this machine, for callers of an identity of another one: ``serve_workers``."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from ..errors import InvalidKey, Overloaded
from ..ipc.messages import DeliverCall, ErrorReply
from ..ipc.messages import encode as encode_header
from ..ipc.messages.base import UNDECODABLE
from ..keys import PublicKey
from ..limits import DEFAULT_INSTANCE
from ..names import check_name
from ..nats_client.nats_server import NatsServer
from ..serving.binding import ServedBinding
from ..serving.dispatcher import Dispatcher
from ..serving.handlers import RequestHandler, StreamHandler
from ..serving.termination import run_until_signal
from .late_offers import LagWatch
from .messages import (
    ID_BYTES,
    Accepted,
    AcceptSession,
    Answer,
    Begin,
    CancelOffer,
    DialForSession,
    FindWorkers,
    Late,
    Offer,
    OfferSession,
    Part,
    RefuseSession,
    Subjects,
    WorkerDraining,
    WorkerReady,
    decode_for_worker,
    is_name,
    new_name,
)
from .nats_channel import NatsChannel
from .parts import OVERHEAD, PayloadAssembly, parts_of
from .ping_responder import PingResponder

if TYPE_CHECKING:
    from .dialled_sessions import DialledSessions

Handlers: TypeAlias = Callable[..., Any] | Mapping[str, Callable[..., Any]]

MAX_LATE: Final = 4096
"""Offers that wait for ``Begin``."""
LATE_TICKS: Final = 20
"""Ticks of ``LagWatch`` for which they wait."""
PART_TICKS: Final = 10
"""Ticks for which a call waits for the next part of its request."""
ASSEMBLED_TICKS: Final = 5
"""Ticks after a large request for which offers may have waited behind it."""
MAX_ASSEMBLED: Final = 256 * 1024 * 1024
"""Bytes of requests that arrive in parts."""
DRAIN_SECONDS: Final = 30.0
"""Seconds that calls in flight may take when the worker is closed."""
SEND_SECONDS: Final = 5.0
_MAX_LABEL: Final = 64
_ITERATIONS: Final = 3
"""Turns of the event loop in which calls that were begun are accepted."""

log = logging.getLogger(__name__)
_decode_call: Final = msgspec.msgpack.Decoder(DeliverCall).decode


class _Call:
    """Call that was offered, and not answered yet."""

    __slots__ = ("assembly", "is_begun", "offer", "ticks")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.assembly: PayloadAssembly | None = None
        self.is_begun = False
        self.ticks = 0
        """Ticks for which it waits for ``Begin``, or for the next part of its request."""


class WorkerServer:
    """Worker of one binding. ``serve_workers`` makes it.

    Attributes:
        ready: set while bridges can find this worker.
    """

    def __init__(
        self,
        server: NatsServer,
        identity: str,
        protocol: str,
        instance: str,
        handlers: Mapping[str, RequestHandler],
        streams: StreamHandler | None,
        concurrency: int | None,
    ) -> None:
        self._server = server
        self._subjects = Subjects.of(identity, protocol, instance)
        self._names = identity, protocol, instance
        self._handlers = handlers
        self._streams = streams
        self._concurrency = concurrency
        self._worker = new_name()
        self._label = f"{Path(sys.argv[0]).name or 'python'}@{socket.gethostname()}"[:_MAX_LABEL]
        self._calls: dict[bytes, _Call] = {}
        self._late: dict[bytes, _Call] = {}
        self._assembling: dict[bytes, _Call] = {}
        """Calls whose requests arrive in parts."""
        self._assembled = 0
        self._ticks_since_part = ASSEMBLED_TICKS
        self._answered: set[bytes] = set()
        self._answered_before: set[bytes] = set()
        """Answered a moment ago: the answer may be on its way."""
        self._binding: ServedBinding | None = None
        self._sessions: DialledSessions | None = None
        self._has_complained = False
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop
        self._channel: NatsChannel
        self._dispatcher: Dispatcher
        self._lag: LagWatch
        self.ready = asyncio.Event()

    async def serve(self) -> None:
        """Serve until cancelled or until ``close`` is called; then take no more calls, and finish those in flight.

        The NATS server and the daemon may restart meanwhile.

        Raises:
            NatsUnusable: the server does not answer, or refuses the connection, at the start.
        """
        loop = self._loop = asyncio.get_running_loop()
        stop = self._stop = asyncio.Event()
        subjects = self._subjects
        self._dispatcher = Dispatcher(self._answer)
        if self._streams is not None:
            from .dialled_sessions import DialledSessions  # TLS takes megabytes

            self._sessions = DialledSessions(self._names, self._streams, self._answer_bridge, self._report_ready)
        self._channel = NatsChannel(
            self._server,
            self._label,
            {subjects.all_workers: self._on_message, subjects.worker(self._worker): self._on_message},
            self._report_ready,
        )
        self._lag = LagWatch(loop, self._on_tick)
        label = f"{self._label} (pings)"
        responder = PingResponder(self._server, label, subjects, self._worker, self._has, self._is_late)
        try:
            await self._channel.connect()
            responder.start()
            connection = asyncio.create_task(self._channel.run())
            try:
                self.ready.set()
                await stop.wait()
                for _ in range(_ITERATIONS):
                    await asyncio.sleep(0)
                self._channel.send(subjects.all_bridges, WorkerDraining(self._worker))
                await self._drain()
                await self._channel.drain(SEND_SECONDS)
            finally:
                self.ready.clear()
                connection.cancel()
                await asyncio.wait([connection])
        finally:
            self._stop = None
            responder.stop()
            self._lag.close()
            self._dispatcher.close()
            if self._sessions is not None:
                self._sessions.close()

    async def _drain(self) -> None:
        """Wait for calls and sessions in flight."""
        calls = self._dispatcher.drain(DRAIN_SECONDS)
        if self._sessions is None:
            await calls
        else:
            await asyncio.gather(calls, self._sessions.drain(DRAIN_SECONDS))

    def run(self) -> None:
        """Serve in an event loop of its own until Ctrl-C, SIGTERM or ``close``, and finish calls in flight.

        A second Ctrl-C or SIGTERM ends the calls in flight. A program that has an event loop awaits ``serve()`` in it
        instead.

        Raises:
            UsedElsewhere: an event loop runs in this thread already.
            NatsUnusable: the server does not answer, or refuses the connection, at the start.
        """
        run_until_signal(self.serve, self.close)

    def close(self) -> None:
        """Have ``serve`` return once the calls in flight have ended."""
        if self._stop is not None:
            self._stop.set()

    @property
    def _is_closing(self) -> bool:
        return self._stop is None or self._stop.is_set()

    def _report_ready(self) -> None:
        if not self._is_closing:
            sessions = 0 if self._sessions is None else len(self._sessions)
            message = WorkerReady(
                self._worker, self._label, self._concurrency or 0, self._sessions is not None, sessions
            )
            self._channel.send(self._subjects.all_bridges, message)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    def _on_message(self, _: str, data: bytes, __: bool) -> None:
        try:
            messages = decode_for_worker(data)
        except UNDECODABLE as error:
            self._ignore(str(error))
            return
        begun: list[_Call] = []
        for message in messages:
            if isinstance(message, Offer):
                self._on_offer(message, begun)
            elif isinstance(message, Begin):
                call = self._late.pop(message.id, None)
                if call is not None:
                    begun.append(call)
            elif isinstance(message, Part):
                self._on_part(message)
            elif isinstance(message, CancelOffer):
                self._on_cancel(message)
            elif isinstance(message, FindWorkers):
                self._report_ready()
            elif isinstance(message, OfferSession | DialForSession):
                self._on_session(message)
        if begun:
            self._begin(begun)

    def _on_session(self, message: OfferSession | DialForSession) -> None:
        if isinstance(message, OfferSession) and (len(message.id) != ID_BYTES or not is_name(message.bridge)):
            self._ignore("an offer of a session without valid names")
        elif self._sessions is not None:
            if isinstance(message, OfferSession):
                self._sessions.on_offer(message)
            else:
                self._sessions.on_dial(message)

    def _answer_bridge(self, bridge: str, message: AcceptSession | RefuseSession) -> None:
        self._channel.send(self._subjects.bridge(bridge, self._worker), message)

    def _on_offer(self, offer: Offer, begun: list[_Call]) -> None:
        if self._is_closing or offer.id in self._calls:
            return
        if len(offer.id) != ID_BYTES or not is_name(offer.bridge) or len(offer.payload) > offer.size:
            self._ignore("an offer without valid names")
            return
        call = self._calls[offer.id] = _Call(offer)
        if not self._is_late():
            begun.append(call)
        elif len(self._late) < MAX_LATE:
            self._late[offer.id] = call
            self._send(offer, Late(offer.id))
        else:
            del self._calls[offer.id]

    def _begin(self, calls: list[_Call]) -> None:
        """Run the handlers of calls. Say so unless they answer before they wait for anything."""
        for call in calls:
            offer = call.offer
            call.is_begun = True
            if len(offer.payload) == offer.size:
                self._deliver(offer, offer.payload)
            else:
                self._assemble(call)
        self._loop.call_soon(self._accept, calls)  # after the first steps of the handlers

    def _accept(self, calls: list[_Call]) -> None:
        accepted: dict[str, list[bytes]] = {}
        for call in calls:
            if call.offer.id in self._calls:
                accepted.setdefault(call.offer.bridge, []).append(call.offer.id)
        for bridge, ids in accepted.items():
            self._channel.send(self._subjects.bridge(bridge, self._worker), Accepted(tuple(ids)))

    def _assemble(self, call: _Call) -> None:
        try:
            if self._assembled + call.offer.size > MAX_ASSEMBLED:
                error = Overloaded(what="bytes of requests that arrive at a worker", limit=MAX_ASSEMBLED)
                self._answer(call.offer.id, encode_header(ErrorReply.of(error)), b"")
                return
            call.assembly = PayloadAssembly(call.offer.size)
        except ValueError as error:
            del self._calls[call.offer.id]
            self._ignore(str(error))
        else:
            self._assembled += call.assembly.size
            self._assembling[call.offer.id] = call
            self._ticks_since_part = 0

    def _on_part(self, part: Part) -> None:
        call = self._assembling.get(part.id)
        if call is None or call.assembly is None:
            return
        call.ticks = self._ticks_since_part = 0
        try:
            payload = call.assembly.add(part.data)
        except ValueError as error:
            self._remove_call(part.id)
            self._ignore(str(error))
            return
        if payload is not None:
            self._end_assembly(call)
            self._deliver(call.offer, payload)

    def _end_assembly(self, call: _Call) -> None:
        if self._assembling.pop(call.offer.id, None) is not None:
            self._assembled -= call.offer.size
            call.assembly = None

    def _on_cancel(self, message: CancelOffer) -> None:
        if self._remove_call(message.id):
            self._dispatcher.cancel(message.id)

    def _remove_call(self, id: bytes) -> bool:
        self._late.pop(id, None)
        call = self._calls.pop(id, None)
        if call is not None:
            self._end_assembly(call)
        return call is not None

    def _deliver(self, offer: Offer, payload: bytes) -> None:
        try:
            message = _decode_call(offer.header)
            if self._binding is None:
                self._binding = ServedBinding(
                    self._names[0],
                    PublicKey(offer.key),
                    *self._names[1:],
                    self._handlers,
                    concurrency=self._concurrency,
                )
                self._dispatcher.add(self._binding)
        except (*UNDECODABLE, InvalidKey) as error:
            del self._calls[offer.id]
            self._ignore(str(error))
        else:
            self._dispatcher.deliver(offer.id, message, payload)

    def _answer(self, id: bytes, header: bytes, payload: bytes) -> None:
        """Send the answer of a handler."""
        call = self._calls.pop(id, None)
        if call is None:
            return
        self._answered.add(id)
        size, largest = len(payload), self._channel.largest - OVERHEAD
        if len(header) + size <= largest:
            self._send(call.offer, Answer(id, header, payload, size))
            return
        self._send(call.offer, Answer(id, header, b"", size))
        for part in parts_of(id, payload, largest):
            self._send(call.offer, part)

    def _send(self, offer: Offer, message: Late | Answer | Part) -> None:
        self._channel.send(self._subjects.bridge(offer.bridge, self._worker), message)

    def _has(self, id: bytes) -> bool:
        """Return whether a call is in flight, or its answer may be on its way. The thread of pings calls it."""
        call = self._calls.get(id)
        if call is not None:
            return call.is_begun
        return id in self._answered or id in self._answered_before

    def _on_tick(self) -> None:
        if self._channel.connected:  # before it is, no answer has left
            self._answered_before, self._answered = self._answered, set()
        self._ticks_since_part += 1
        for calls, limit in ((self._late, LATE_TICKS), (self._assembling, PART_TICKS)):
            for id, call in list(calls.items()):
                call.ticks += 1
                if call.ticks > limit:
                    self._remove_call(id)

    def _is_late(self) -> bool:
        """Return whether offers may have waited to be read. The thread of pings calls it, too."""
        return self._lag.is_late or bool(self._assembling) or self._ticks_since_part < ASSEMBLED_TICKS

    def _ignore(self, reason: str) -> None:
        """Log the first message that is none."""
        if not self._has_complained:
            self._has_complained = True
            log.warning("messages on %s that are none are ignored: %s", self._subjects.base, reason[:200])


def serve_workers(
    url: str,
    identity: str,
    protocol: str,
    handlers: Handlers | None = None,
    *,
    streams: Callable[..., Any] | None = None,
    instance: str = DEFAULT_INSTANCE,
    credentials: str | os.PathLike[str] = "",
    ca: str | os.PathLike[str] = "",
    concurrency: int | None = None,
) -> WorkerServer:
    """Return a worker for a binding that its owner has added with ``--workers``: ``run()`` or ``await serve()`` it.

    ::

        def resize(request: Picture, peer: Peer) -> Picture: ...

        serve_workers("nats://nats.example.org", "alice", "Work", resize, concurrency=4).run()

    Any number of them may run, on any machines. No daemon is needed there, and no key is. For each session the worker
    connects to the daemon, whose owner has set ``worker.listen``.

    Args:
        url: ``nats://HOST:PORT``, or ``tls://HOST:PORT``; several servers of a cluster with commas between them.
        identity: the name of the identity at its daemon.
        protocol: the name of the protocol.
        handlers: what ``Server.handle_requests`` takes: a function of the request and, if it wants them, the calling
            ``Peer`` and the ``CallContext``. For a protocol with commands, functions by command. None if it serves
            sessions only.
        streams: what ``Server.handle_streams`` takes: a function of the ``Session`` and, if it wants it, the initial
            data. None if it serves no sessions.
        instance: the name of the instance.
        credentials: path of a file that only its owner can read: a ``.creds`` file of NATS, an nkey seed, or
            TOML with ``user`` and ``password``, or ``token``.
        ca: path of the certificates with which that of the server is checked. By default those of the system.
        concurrency: calls that are handled at once, beside sessions. Further ones wait in the daemon, until any worker
            has room. None for no limit.

    Raises:
        InvalidHandler: a handler cannot be called with a request, or with a session.
        InvalidName: the identity, protocol, instance or a command has no valid name.
        InvalidServer: the URL is none, or a file cannot be used. It is a ``ValueError``.
        ValueError: there is no handler.
    """
    functions = handlers if isinstance(handlers, Mapping) else {} if handlers is None else {"": handlers}
    if not functions and streams is None:
        raise ValueError("there is nothing to serve: pass a handler")
    for command in functions:
        if command:
            check_name(command, "a command")
    compiled = {command: RequestHandler(function) for command, function in functions.items()}
    served = None if streams is None else StreamHandler(streams)
    paths = [os.path.abspath(each) if each else "" for each in (credentials, ca)]  # noqa: PTH100 - the empty path is none
    server = NatsServer(url, *paths)
    worker = WorkerServer(server, identity, protocol, instance, compiled, served, concurrency)
    server.check()
    return worker
