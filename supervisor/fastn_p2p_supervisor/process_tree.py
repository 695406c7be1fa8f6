"""The tree: every child of the daemon, in the order in which they are started, and what happens when one fails.

One for one: a child that ends is started again by itself, as all others reconnect to it. A core actor that
keeps crashing fails the tree; an identity that does is parked as failed, and the rest lives on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Final

from fastn_p2p_actors.runtime import actor
from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.process_setup import (
    boot_ms,
    own_memory,
)
from fastn_p2p_actors.runtime.specs import ActorSpec
from fastn_p2p_client.errors import IdentityFailed, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import ErrorReply
from fastn_p2p_client.names import check_name

from .allowed_requests import authorise
from .child import Child, ChildResources, ProcessState
from .fork_server import ForkServer
from .restart_policy import (
    CORE,
    IDENTITY,
    RestartHistory,
    Timeouts,
)

__all__ = ["ProcessTree"]

STARTING_AT_ONCE: Final = 8
"""Identities of a list that are started side by side: of a hundred, none starves the others of their deadlines."""
ASKS_IN_FLIGHT: Final = 256
COUNTED_PER_TICK: Final = 32
"""Identities whose processes are counted at each look, beside those that have some."""

log = logging.getLogger("supervisor")


class ProcessTree:
    """All children. Made inside the running event loop.

    Attributes:
        core: the core actors in start order.
        identities: the identities that run, or should, by name.
        failure: set to the reason, in words for people, when the tree cannot go on.
    """

    def __init__(
        self,
        core: Iterable[ActorSpec],
        identity: Callable[[str], ActorSpec],
        forks: ForkServer,
        *,
        changed: Callable[[], None],
        sweep: Callable[[], None] = lambda: None,
        patience: Timeouts = Timeouts(),  # noqa: B008  (immutable)
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``identity`` makes the spec of an identity by its name; ``changed`` is told whenever ``report`` differs;
        ``sweep`` ends what processes that have ended have left behind."""
        self._means = ChildResources(forks, actor.main, patience, clock)
        self._identity = identity
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._gate = asyncio.Semaphore(STARTING_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_tick = clock()
        self._next_counted = 0
        self._parents: set[Child] = set()
        """Identities whose protocols have started processes."""
        self._started_ms = boot_ms()
        self.changed = changed
        self.sweep = sweep
        self.failure: asyncio.Future[str] = self._loop.create_future()
        self.core = [Child(spec, RestartHistory(CORE, jitter), self._means, self) for spec in core]
        self.identities: dict[str, Child] = {}

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    def start(self, identities: Iterable[str]) -> None:
        """Starts everything, awaiting nothing: actors find each other by themselves."""
        for child in self.core:
            child.start()
        self.ensure_online(identities)
        self._tick()

    async def core_ready(self) -> None:
        """Waits until all core actors are ready, at the same time."""
        while not self.healthy:
            for child in self.core:
                await child.healthy.wait()

    async def all_started(self) -> None:
        """Waits until all core actors are ready, and every identity was ready or has failed once."""
        await self.core_ready()
        for child in list(self.identities.values()):
            await child.started_once.wait()

    async def stop(self, whole: float) -> None:
        """Stops everything, in reverse order, within ``whole`` seconds; returns once all processes are gone."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        patience = self._means.patience
        end = self._loop.time() + whole
        groups = [list(self.identities.values()), *([child] for child in reversed(self.core))]
        for group in groups:
            grace = max(0.0, min(patience.drain, end - self._loop.time()))
            await asyncio.gather(*(child.stop(grace) for child in group))

    def kill(self) -> None:
        """Kills every process at once."""
        self._stopping = True
        for child in self._everyone():
            child.kill("killed by the operator")

    @property
    def healthy(self) -> bool:
        """Whether every core actor is ready and gives signs of life."""
        return all(child.healthy.is_set() for child in self.core)

    def report(self) -> list[wire.ProcessInfo]:
        """The supervisor, then every child."""
        state = ProcessState.STOPPING if self._stopping else ProcessState.READY
        own = wire.ProcessInfo("supervisor", os.getpid(), state, self._started_ms, 0, "", own_memory())
        return [own, *(child.report() for child in self._everyone())]

    # ── identities ───────────────────────────────────────────────────────────────────────────────

    async def start_identity(self, name: str) -> None:
        """Returns once the identity's process is ready.

        Raises:
            InvalidName: nothing can be called that.
            IdentityFailed: it does not stay up, or was stopped meanwhile.
        """
        check_name(name, "an identity")
        child = self.identities.get(name)
        if child is not None and child.state == ProcessState.STOPPING:
            await self.stop_identity(name)
        child = self._child_for(name)
        child.start()
        reason = await child.outcome()
        if reason:
            raise IdentityFailed(identity=name, reason=reason)

    async def stop_identity(self, name: str) -> None:
        """Returns once the identity's process is gone; at once when there is none."""
        child = self.identities.get(name)
        if child is not None:
            await child.stop(self._means.patience.drain)
            if self.identities.get(name) is child:
                del self.identities[name]
            self.changed()

    def ensure_online(self, names: Iterable[str]) -> None:
        """Starts those that have no place in the tree, a few at a time, and returns at once."""
        for name in names:
            check_name(name, "an identity")
            if name not in self.identities:
                self._spawn(self._start_in_turn(self._child_for(name)))

    def _child_for(self, name: str) -> Child:
        if self._stopping:
            raise IdentityFailed(identity=name, reason="the daemon is stopping")
        child = self.identities.get(name)
        if child is None:
            child = Child(self._identity(name), RestartHistory(IDENTITY, self._jitter), self._means, self)
            self.identities[name] = child
        return child

    async def _start_in_turn(self, child: Child) -> None:
        async with self._gate:
            child.start()
            await child.started_once.wait()

    # ── what children do ─────────────────────────────────────────────────────────────────────────

    def on_request(self, child: Child, ask: wire.ChildRequest) -> None:
        """Answers a child's request, at once or later."""
        try:
            authorise(child.name, ask.request)
            if len(self._tasks) >= ASKS_IN_FLIGHT:
                raise Overloaded(what="requests to the supervisor", limit=ASKS_IN_FLIGHT)
        except P2PError as error:
            log.warning("%s: %s", child.name, error)
            child.send(wire.ChildResponse(ask.id, ErrorReply.of(error)), child.pid)
        else:
            self._spawn(self._answer(child, child.pid, ask))

    def on_crash_loop(self, child: Child) -> None:
        """A core actor takes the tree with it."""
        log.error("%s keeps ending; giving it up (%s)", child.name, child.last_exit)
        if child in self.core:
            self.on_fatal_error(f"{child.name} does not stay up ({child.last_exit})")

    def on_fatal_error(self, reason: str) -> None:
        """Ends the tree."""
        if not self.failure.done():
            self.failure.set_result(reason)

    async def _answer(self, child: Child, pid: int, ask: wire.ChildRequest) -> None:
        """Answers the process that asked: its successor numbers its requests afresh, and must not get this."""
        result: wire.Result
        try:
            result = await self._do(ask.request)
        except P2PError as error:
            result = ErrorReply.of(error)
        try:
            child.send(wire.ChildResponse(ask.id, result), pid)
        except PayloadTooLarge as error:
            child.send(wire.ChildResponse(ask.id, ErrorReply.of(error)), pid)

    async def _do(self, request: wire.Request) -> wire.Result:
        match request:
            case wire.StartIdentity(name):
                await self.start_identity(name)
            case wire.StopIdentity(name):
                check_name(name, "an identity")
                await self.stop_identity(name)
            case wire.EnsureOnline(names):
                self.ensure_online(names)
            case wire.GetProcesses():
                return wire.ProcessList(self.report())
        return wire.Ack()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        """Looks who is silent. Was this process itself held up, then nobody is to blame for a silence."""
        if self._stopping:
            return
        now = self._means.clock()
        tick = self._means.patience.tick
        excused = now - self._last_tick > 2 * tick
        self._last_tick = now
        for child in self._everyone():
            child.check(now, excused=excused)
        self._count_descendants()
        self.sweep()
        self._loop.call_later(tick, self._tick)

    def _count_descendants(self) -> None:
        """Of identities that had any at the last look, and of some others in turn: each look takes some 50 µs."""
        children = list(self.identities.values())
        start = self._next_counted % len(children) if children else 0
        self._next_counted = start + COUNTED_PER_TICK
        turn = (children[start:] + children[:start])[:COUNTED_PER_TICK]
        self._parents = {child for child in {*turn, *self._parents} if child.count_descendants()}

    def _everyone(self) -> list[Child]:
        return [*self.core, *self.identities.values()]

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
