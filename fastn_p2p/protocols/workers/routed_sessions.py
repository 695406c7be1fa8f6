"""Sessions of a binding on their way to workers. Bytes never pass NATS: the worker connects to the daemon.

A worker is asked first, and makes a token. The network process learns the token's hash, and gives the session to the
worker that shows the token. Then it cancels the handler here, so all of this ends by cancellation where it succeeds.

=================================================  ================================================================
a worker                                           the session
=================================================  ================================================================
was not reached, as the server says, or refuses    is offered to another one
does not answer, or does not take it in time       is offered to another one, ``MAX_ATTEMPTS`` in all
is not there, nor another one for 1 s              ends with ``ProtocolNotFound``, as it does where no program serves
serves calls only, as all others do                ends with ``BadRequest``
=================================================  ================================================================
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from fastn_p2p_client.errors import BadRequest, HandlerFailed, Overloaded, P2PError, ProtocolNotFound
from fastn_p2p_client.plain_text import plain
from fastn_p2p_client.protocol import BindingContext
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.worker_token import parse_address
from fastn_p2p_client.workers.messages import (
    ID_BYTES,
    AcceptSession,
    DialForSession,
    FindWorkers,
    OfferSession,
    RefuseSession,
)

from .worker_calls import KnownWorker

MAX_ATTEMPTS: Final = 4
"""Workers that are asked for one session."""
ANSWER_SECONDS: Final = 1.5
"""Seconds in which a worker answers an offer."""
DIAL_SECONDS: Final = 3.0
"""Seconds in which it takes the session then. Its token counts for longer."""
NOBODY_SECONDS: Final = 1.0
SEARCH_SECONDS: Final = 0.3
"""Seconds between two questions for workers while there is none."""
MAX_AT_ONCE: Final = 24
"""Sessions that are on their way to workers at once: the daemon has 64 places for connections without a token."""
MAX_WAITING: Final = 1024
"""Sessions that wait for that."""
MAX_REASON: Final = 200
_EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - it is compared
"""Hosts that stand for all addresses of a machine."""

Send: TypeAlias = Callable[[KnownWorker, OfferSession | DialForSession, str], None]
"""Sends a message to a worker. The last argument ends the subject on which the server says that it was not there."""

log = logging.getLogger(__name__)


class RoutedSessions:
    """Passes the sessions of one binding on. Create and use it inside one event loop.

    Args:
        context: the binding.
        bridge: name of the bridge.
        address: host and port at which workers reach this daemon; empty for those at which it listens.
        workers: workers that are known, by name.
        send: sends a message to a worker.
        find: sends a question for workers.
    """

    def __init__(
        self,
        context: BindingContext,
        bridge: str,
        address: str,
        workers: Mapping[str, KnownWorker],
        send: Send,
        find: Callable[[FindWorkers], None],
    ) -> None:
        self._context = context
        self._bridge = bridge
        self._address = address
        self._workers = workers
        self._send = send
        self._find = find
        self._answers: dict[tuple[str, bytes], asyncio.Future[AcceptSession | RefuseSession]] = {}
        """Answers that are awaited, by worker and offer: no worker can answer for another one."""
        self._limit = asyncio.Semaphore(MAX_AT_ONCE)
        self._waiting = 0
        self._changed = asyncio.Event()
        self._problem = ""

    async def pass_on(self, session: Session) -> None:
        """Have a worker take a session. This is cancelled once it has.

        Raises:
            ProtocolNotFound: there is no worker.
            BadRequest: no worker serves sessions.
            HandlerFailed: the daemon does not listen for workers, or no worker has taken it in time.
            Overloaded: too many sessions wait.
            P2PError: the session has ended.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded(what=f"sessions that wait for workers of {self._context.protocol}", limit=MAX_WAITING)
        self._waiting += 1
        try:
            async with self._limit:
                await self._offer_to_several(session)
        finally:
            self._waiting -= 1

    async def _offer_to_several(self, session: Session) -> None:
        tried: set[str] = set()
        while len(tried) < MAX_ATTEMPTS:
            worker = await self._choose(session, tried)
            if worker is None:
                break
            tried.add(worker.name)
            worker.routed += 1
            try:
                problem = await self._offer(session, worker)
            finally:
                worker.routed -= 1
            if worker.name not in self._workers:  # it had ended before
                tried.discard(worker.name)
            log.warning("the worker %s (%s) has not taken a session: %s", worker.name, worker.label, plain(problem))
        raise self._failed(f"no worker has taken the session in time; asked: {len(tried)}")

    async def _choose(self, session: Session, tried: set[str]) -> KnownWorker | None:
        """Return the worker with the fewest sessions that was not asked; None if all were."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + NOBODY_SECONDS
        while True:
            self._changed.clear()
            usable = [each for each in self._workers.values() if each.serves_sessions and not each.is_draining]
            left = [each for each in usable if each.name not in tried]
            if left:
                return min(left, key=lambda each: (each.is_slow, each.sessions + each.routed, len(each.calls)))
            seconds = deadline - loop.time()
            if tried or seconds <= 0:
                break
            self._find(FindWorkers())
            await _first(session, self._changed.wait(), min(seconds, SEARCH_SECONDS))
        context = self._context
        if tried:
            return None
        if self._workers:
            raise BadRequest(protocol=context.protocol, reason="its workers take no sessions")
        raise ProtocolNotFound(peer=context.key.id52, protocol=context.protocol)

    async def _offer(self, session: Session, worker: KnownWorker) -> str:
        """Offer a session to a worker, and wait until it has taken it, which cancels this. Return why it has not."""
        loop = asyncio.get_running_loop()
        id = os.urandom(ID_BYTES)
        key, about = (worker.name, id), id.hex()
        try:
            answer = self._answers[key] = loop.create_future()
            self._send(worker, OfferSession(id, self._bridge, bytes(self._context.key)), about)
            accepted = await _first(session, answer, ANSWER_SECONDS)
            if not isinstance(accepted, AcceptSession):
                worker.is_slow = accepted is None
                return "it does not answer" if accepted is None else accepted.reason[:MAX_REASON]
            route = await _first(session, session.request_route(accepted.token_hash), ANSWER_SECONDS)
            if route is None:
                return "the daemon's network process does not answer"
            address = self._address or route.address
            if problem := route.problem or problem_of(address):
                raise self._unreachable(problem)
            answer = self._answers[key] = loop.create_future()
            self._send(worker, DialForSession(id, address, route.fingerprint), about)
            refused = await _first(session, answer, DIAL_SECONDS)
            if isinstance(refused, RefuseSession):
                return refused.reason[:MAX_REASON]
            worker.is_slow = True
            return "it has not connected to the daemon"
        finally:
            self._answers.pop(key, None)

    def _unreachable(self, problem: str) -> P2PError:
        """Return the error for a daemon that workers cannot reach. The log has it once."""
        if problem != self._problem:
            self._problem = problem
            log.warning("no worker can take a session: %s", problem)
        return self._failed(f"no worker can take a session: {problem}")

    def _failed(self, reason: str) -> P2PError:
        return HandlerFailed(peer=self._context.key.id52, protocol=self._context.protocol, reason=reason)

    def on_answer(self, worker: KnownWorker, message: AcceptSession | RefuseSession) -> None:
        """Handle the answer of a worker to an offer. One to an offer that has ended is ignored."""
        answer = self._answers.get((worker.name, message.id))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def on_unreachable(self, worker: KnownWorker, about: str) -> None:
        """The server says that a worker was not there to receive the offer whose subject ended with this."""
        try:
            id = bytes.fromhex(about)
        except ValueError:
            return
        self.on_answer(worker, RefuseSession(id, "the NATS server does not reach it"))

    def on_workers_changed(self) -> None:
        """Look at the workers again."""
        self._changed.set()


def problem_of(address: str) -> str:
    """Return why workers on other machines cannot connect to an address; empty if they can."""
    if parse_address(address)[0] not in _EVERY_ADDRESS:
        return ""
    return (
        f"it listens at {address}, which is no address of one machine. Say where workers reach it when you add the "
        "protocol: --workers-address HOST:PORT"
    )


async def _first(session: Session, awaited: Any, seconds: float) -> Any:
    """Return a result; None after so many seconds. Raise the error of the session if that ends before."""
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait((task, session.opened), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if session.opened.done():
            session.opened.result()
        return task.result() if task.done() else None
    finally:
        task.cancel()
