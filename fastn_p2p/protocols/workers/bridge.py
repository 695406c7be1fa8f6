"""Bridge between a binding of this identity and its workers, through a NATS server.

A call is offered to the worker with the fewest calls, which says that it has accepted it, or answers at once. NATS may
lose messages, so the bridge relies on none of them: it asks workers with short pings.

============================================  =========================================================================
a worker                                      the call
============================================  =========================================================================
was not reached, as the server says           is offered to another worker
has ended or is frozen (no pong for 0.7 s)    is executed by another worker if it has a call id; else it ends with
                                              ``ConnectionLost``, as it may have been executed
has not begun, as three pongs say, because    is offered to another worker; this one has to ask before it begins
it computes or receives large requests
does not have the call, as three pongs say    ends, or is executed again, as if the worker had ended: the offer or the
                                              answer was lost. The same worker, asked again, sends its first result
accepts nothing because all its room is used  waits for room, up to ``queue`` calls
is not there, nor another one for 1 s         ends with ``ProtocolNotFound``, as it does where no program serves. With a
                                              call id it waits until its deadline
============================================  =========================================================================

Time is counted in ticks of this event loop: where the loop itself was late, no worker is blamed for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from fastn_p2p_client.errors import ConnectionLost, Overloaded, P2PError, ProtocolNotFound
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.nats_client.nats_server import NatsServer
from fastn_p2p_client.plain_text import plain
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.workers.messages import (
    ID_BYTES,
    Accepted,
    AcceptSession,
    Answer,
    Begin,
    CancelOffer,
    FindWorkers,
    Late,
    Offer,
    Part,
    Ping,
    Pong,
    RefuseSession,
    Subjects,
    WorkerDraining,
    WorkerReady,
    decode_for_bridge,
    is_name,
    new_name,
)
from fastn_p2p_client.workers.nats_channel import NatsChannel
from fastn_p2p_client.workers.parts import OVERHEAD, PayloadAssembly, parts_of

from .routed_sessions import RoutedSessions
from .worker_calls import BridgedCall, KnownWorker

if TYPE_CHECKING:
    from fastn_p2p_client.claims.call_claims import Outcome
    from fastn_p2p_client.serving.forwarded_call import ForwardedCall

TICK_SECONDS: Final = 0.1
GONE_TICKS: Final = 7
NOBODY_TICKS: Final = 10
SEARCH_TICKS: Final = 3
"""Ticks between two questions for workers while there are none."""
PING_TICKS: Final = 2
"""Ticks after which pings ask for a call."""
REFRESH_TICKS: Final = 50
"""Ticks between two questions for workers while there are calls."""
UNKNOWN_PONGS: Final = 3
MAX_WORKERS: Final = 1024
MAX_PINGED: Final = 1000
"""Calls that one ping asks for."""
LAST_SECONDS: Final = 0.3
"""Seconds before its deadline at which a call with a call id ends that no worker has."""
_MAX_LABEL: Final = 80
_OFFER: Final = "offer"
"""Part of the subject on which the server says that an offer reached nobody."""
_SESSION: Final = "session"

WorkerAnswer: TypeAlias = Accepted | Late | Answer | Part | Pong | AcceptSession | RefuseSession

log = logging.getLogger(__name__)


class WorkerBridge:
    """Gives the calls of one binding to workers. Create and use it inside one event loop.

    Args:
        context: the binding.
        server: the NATS server.
        queue: calls that wait for room at workers at most.
        address: host and port at which workers reach this daemon for sessions; empty for those at which it listens.

    Attributes:
        sessions: passes sessions on.
    """

    def __init__(self, context: BindingContext, server: NatsServer, queue: int, address: str) -> None:
        self._context = context
        self._queue = queue
        self._key = bytes(context.key)
        self._name = new_name()
        self._subjects = Subjects.of(context.identity, context.protocol, context.instance)
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, BridgedCall] = {}
        self._waiting: deque[BridgedCall] = deque()
        self._workers: dict[str, KnownWorker] = {}
        self._ticks = 0
        self._prefix = os.urandom(ID_BYTES // 2)
        self._offers = 0
        self._batch = 0
        self._batch_is_open = False
        self._timer: asyncio.TimerHandle | None = None
        self._has_complained = False
        self.sessions = RoutedSessions(
            context,
            self._name,
            address,
            self._workers,
            lambda worker, message, about: self._channel.send(
                worker.subject, message, f"{worker.reply_subject}.{_SESSION}.{about}"
            ),
            lambda message: self._channel.send(self._subjects.all_workers, message),
        )
        own = self._subjects.bridge(self._name, ">")
        subscriptions = {own: self._on_message, self._subjects.all_bridges: self._on_message}
        self._channel = NatsChannel(server, f"fastn-p2p {context.identity}", subscriptions, self._on_connected)
        self._running = self._loop.create_task(self._channel.run())

    def call(self, forwarded: ForwardedCall, *, may_repeat: bool = True) -> asyncio.Future[Outcome]:
        """Have a worker execute a call. Return the future of its answer, which may be cancelled.

        Args:
            forwarded: the call.
            may_repeat: it may be executed again, if it has a call id.

        The future has these exceptions:

            ConnectionLost: the worker that had it has ended.
            ProtocolNotFound: there is no worker.
            Overloaded: too many calls wait for room at workers.
        """
        call = BridgedCall(forwarded, self._loop.create_future(), may_repeat=may_repeat)
        self._assign(call)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        call.outcome.add_done_callback(partial(self._on_end, call))
        return call.outcome

    def _on_end(self, call: BridgedCall, outcome: asyncio.Future[Outcome]) -> None:
        if call.id:
            self._remove(call)
            if call.worker is not None and outcome.cancelled():
                self._send(call.worker, CancelOffer(call.id))
        else:
            self._stop_waiting(call)
        if self._waiting:
            self._assign_waiting()

    async def close(self) -> None:
        """End the connection. Calls in flight end."""
        if self._timer is not None:
            self._timer.cancel()
        self._running.cancel()
        await asyncio.wait([self._running])
        for call in [*self._calls.values(), *self._waiting]:
            self._fail(call, ConnectionLost(what="the binding"))

    # ── giving calls to workers ──────────────────────────────────────────────────────────────────────

    def _assign(self, call: BridgedCall) -> None:
        worker = self._best_worker()
        if worker is not None and not self._waiting:
            self._offer(call, worker)
        elif len(self._waiting) < self._queue:
            self._waiting.append(call)
            if worker is None and not self._workers:
                self._channel.send(self._subjects.all_workers, FindWorkers())
        else:
            what = f"calls that wait for workers of {self._context.protocol}"
            self._fail(call, Overloaded(what=what, limit=self._queue))

    def _assign_waiting(self) -> None:
        while self._waiting:
            worker = self._best_worker()
            if worker is None:
                return
            call = self._waiting.popleft()
            if not call.outcome.done():
                self._offer(call, worker)

    def _best_worker(self, *, only_quick: bool = False) -> KnownWorker | None:
        """Return the worker with the fewest calls of those that have room; a slow one only if there is no other."""
        best: KnownWorker | None = None
        if not self._channel.connected:
            return None
        for worker in self._workers.values():
            if not worker.has_room or (only_quick and worker.is_slow):
                continue
            if best is None or worker.is_better_than(best):
                best = worker
        return best

    def _offer(self, call: BridgedCall, worker: KnownWorker) -> None:
        self._offers += 1
        call.id = self._prefix + self._offers.to_bytes(ID_BYTES - len(self._prefix), "big")
        call.worker = worker
        call.is_accepted = False
        call.ticks = 0
        if not worker.calls:
            worker.missed = 0
        worker.last_offer = self._offers
        worker.calls[call.id] = self._calls[call.id] = call
        header, payload = call.header(), call.payload
        size = len(payload)
        call.is_whole = len(header) + size + OVERHEAD <= self._channel.largest
        offer = Offer(call.id, self._name, self._key, header, payload if call.is_whole else b"", size)
        if not self._batch_is_open:
            self._batch_is_open = True
            self._batch += 1
            self._loop.call_soon(self._close_batch)
        call.batch = self._batch
        self._channel.send(worker.subject, offer, f"{worker.reply_subject}.{_OFFER}.{self._batch}")

    def _close_batch(self) -> None:
        self._batch_is_open = False

    def _send(self, worker: KnownWorker, message: Begin | CancelOffer | Part) -> None:
        self._channel.send(worker.subject, message)

    def _remove(self, call: BridgedCall) -> None:
        """Forget the present offer of a call."""
        self._calls.pop(call.id, None)
        worker = call.worker
        if worker is not None:
            worker.calls.pop(call.id, None)
            if worker.is_draining and not worker.calls:
                self._workers.pop(worker.name, None)

    def _stop_waiting(self, call: BridgedCall) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(call)

    def _move(self, call: BridgedCall) -> None:
        """Offer a call to another worker, or have it wait for one. The one that has it is told."""
        if call.worker is not None:
            self._send(call.worker, CancelOffer(call.id))
        self._remove(call)
        call.begin_again()
        worker = self._best_worker()
        if worker is not None:
            self._offer(call, worker)
        else:
            self._waiting.appendleft(call)

    def _fail(self, call: BridgedCall, error: P2PError) -> None:
        if not call.outcome.done():
            call.outcome.set_exception(error)

    # ── watching workers ─────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        self._timer = None
        if not self._calls and not self._waiting:
            return
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._ticks += 1
        if self._ticks % REFRESH_TICKS == 0 or (not self._workers and self._ticks % SEARCH_TICKS == 0):
            self._channel.send(self._subjects.all_workers, FindWorkers())
        for worker in [each for each in self._workers.values() if each.calls]:
            worker.missed += 1
            if worker.missed >= GONE_TICKS:
                self._lose(worker)
            else:
                self._watch(worker)
        self._watch_waiting()

    def _watch(self, worker: KnownWorker) -> None:
        asked: list[bytes] = []
        for call in worker.calls.values():
            call.ticks += 1
            if call.ticks >= PING_TICKS and len(asked) < MAX_PINGED:
                asked.append(call.id)
        if self._channel.connected:
            ping = Ping(self._name, tuple(asked))
            self._channel.send(self._subjects.ping(worker.name), ping, f"{worker.reply_subject}.ping")

    def _watch_waiting(self) -> None:
        if self._workers and self._channel.connected:
            self._assign_waiting()
            return
        for call in list(self._waiting):
            call.ticks += 1
            if call.ticks >= NOBODY_TICKS and (not call.may_wait or call.remaining() < LAST_SECONDS):
                context = self._context
                self._fail(call, ProtocolNotFound(peer=context.key.id52, protocol=context.protocol))

    def _lose(self, worker: KnownWorker) -> None:
        """Forget a worker that has ended or is frozen."""
        self._workers.pop(worker.name, None)
        log.warning("the worker %s (%s) does not answer any more", worker.name, worker.label)
        for call in list(worker.calls.values()):
            if call.may_repeat:
                self._move(call)
            else:
                self._send(worker, CancelOffer(call.id))
                self._fail(call, ConnectionLost(what=f"the worker {worker.label}"))

    def _on_connected(self) -> None:
        for worker in self._workers.values():
            worker.missed = 0
        self._channel.send(self._subjects.all_workers, FindWorkers())

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    def _on_message(self, subject: str, data: bytes, is_unreachable: bool) -> None:
        _, _, sender = subject.removeprefix(self._subjects.base).partition(f".bridge.{self._name}.")
        name, _, about = sender.partition(".")
        worker = self._workers.get(name)
        if is_unreachable:
            self._on_unreachable(worker, about)
            return
        try:
            messages = decode_for_bridge(data)
        except UNDECODABLE as error:
            self._ignore(str(error))
            return
        if worker is not None:
            worker.missed = 0
        elif is_name(name):
            self._channel.send(self._subjects.all_workers, FindWorkers())  # it was taken for dead
        for message in messages:
            if isinstance(message, WorkerReady):
                self._on_ready(message)
            elif isinstance(message, WorkerDraining):
                self._on_draining(message)
            elif worker is not None:
                self._on_worker_message(worker, message)

    def _on_worker_message(self, worker: KnownWorker, message: WorkerAnswer) -> None:
        if isinstance(message, Accepted):
            for each in message.ids:
                self._on_accepted(worker, worker.calls.get(each))
        elif isinstance(message, Answer):
            self._on_answer(worker, message)
        elif isinstance(message, Part):
            self._on_part(worker, message)
        elif isinstance(message, AcceptSession | RefuseSession):
            self.sessions.on_answer(worker, message)
        elif isinstance(message, Late):
            if message.id in worker.calls:
                self._send(worker, Begin(message.id))
            else:
                self._send(worker, CancelOffer(message.id))
        else:
            self._on_pong(worker, message)

    def _on_accepted(self, worker: KnownWorker, call: BridgedCall | None) -> None:
        if call is None or call.is_accepted:
            return
        worker.is_slow = False
        call.is_accepted = True
        call.ticks = 0
        if not call.is_whole:
            for part in parts_of(call.id, call.payload, self._channel.largest):
                self._send(worker, part)

    def _on_answer(self, worker: KnownWorker, answer: Answer) -> None:
        call = worker.calls.get(answer.id)
        if call is None or call.assembly is not None:
            return
        if len(answer.payload) == answer.size:
            self._finish(call, answer.header, answer.payload)
            return
        try:
            call.assembly = PayloadAssembly(answer.size)
        except ValueError as error:
            self._ignore(str(error))
        else:
            call.answer_header = answer.header

    def _on_part(self, worker: KnownWorker, part: Part) -> None:
        call = worker.calls.get(part.id)
        if call is None or call.assembly is None:
            return
        call.unknown = 0
        try:
            payload = call.assembly.add(part.data)
        except ValueError as error:
            self._ignore(str(error))
            return
        if payload is not None:
            self._finish(call, call.answer_header, payload)

    @staticmethod
    def _finish(call: BridgedCall, header: bytes, payload: bytes) -> None:
        if not call.outcome.done():
            call.outcome.set_result((header, payload))

    def _on_pong(self, worker: KnownWorker, pong: Pong) -> None:
        for each in pong.known:
            call = worker.calls.get(each)
            if call is not None:
                call.unknown = 0
                self._on_accepted(worker, call)
        for each in pong.unknown:
            call = worker.calls.get(each)
            if call is not None:
                call.unknown += 1
                if call.unknown >= UNKNOWN_PONGS:
                    self._on_unknown(worker, call, is_late=pong.is_late)

    def _on_unknown(self, worker: KnownWorker, call: BridgedCall, *, is_late: bool) -> None:
        """The worker does not have a call: it has not read the offer yet, or its answer was lost, or the offer was."""
        if is_late and not call.is_accepted:
            worker.is_slow = True
            if self._best_worker(only_quick=True) is not None:
                self._move(call)
        elif call.may_repeat:
            self._offer_again(call, worker)  # which may still have the answer
        else:
            self._fail(call, ConnectionLost(what=f"the connection to the worker {worker.label}"))

    def _offer_again(self, call: BridgedCall, worker: KnownWorker) -> None:
        self._remove(call)
        call.begin_again()
        self._offer(call, worker)

    def _on_unreachable(self, worker: KnownWorker | None, about: str) -> None:
        """The server says that a worker does not listen. It has ended, or is about to connect again."""
        if worker is None:
            return
        worker.missed += 1
        kind, _, batch = about.partition(".")
        if kind == _SESSION:
            if not worker.calls:
                self._workers.pop(worker.name, None)
            self.sessions.on_unreachable(worker, batch)
        if kind != _OFFER or not batch.isdecimal():
            return
        worker.is_slow = True
        unread = [each for each in worker.calls.values() if each.batch == int(batch) and not each.is_accepted]
        if len(unread) == len(worker.calls):
            self._workers.pop(worker.name, None)
        for call in unread:
            self._move(call)

    def _on_ready(self, ready: WorkerReady) -> None:
        if not is_name(ready.worker) or ready.capacity < 0:
            self._ignore("a worker without a valid name")
            return
        known = self._workers.get(ready.worker)
        if known is None and len(self._workers) < MAX_WORKERS:
            label = plain(ready.label[:_MAX_LABEL])
            subjects = self._subjects.worker(ready.worker), self._subjects.bridge(self._name, ready.worker)
            known = self._workers[ready.worker] = KnownWorker(ready.worker, label, ready.capacity, *subjects)
            log.info("the worker %s (%s) takes calls", ready.worker, label)
        if known is not None:
            known.is_slow = False
            known.serves_sessions = ready.serves_sessions
            known.sessions = max(0, ready.sessions)
            self.sessions.on_workers_changed()
            self._assign_waiting()

    def _on_draining(self, draining: WorkerDraining) -> None:
        worker = self._workers.get(draining.worker)
        if worker is None:
            return
        worker.is_draining = True
        for call in [each for each in worker.calls.values() if not each.is_accepted]:
            self._move(call)
        if not worker.calls:
            self._workers.pop(worker.name, None)

    def _ignore(self, reason: str) -> None:
        """Log the first message that is none."""
        if not self._has_complained:
            self._has_complained = True
            log.warning("messages on %s that are none are ignored: %s", self._subjects.base, plain(reason[:200]))
