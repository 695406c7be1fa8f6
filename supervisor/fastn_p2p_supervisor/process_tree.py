"""Process tree: all children of the daemon, their start order, restarts, and requests.

Restarts are one for one. A child that ends is restarted alone, because all others reconnect to it. A core actor in a
crash loop ends the daemon. An identity in a crash loop becomes ``failed``, and the rest keeps running.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from fastn_p2p_actors.runtime import actor
from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.log_files import LEVEL_VARIABLE, set_level
from fastn_p2p_actors.runtime.process_setup import boot_ms, own_memory
from fastn_p2p_actors.runtime.separate_users import ProcessAccount
from fastn_p2p_actors.runtime.specs import ActorSpec
from fastn_p2p_client.errors import DaemonBusy, Forbidden, IdentityFailed, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import Ack, ErrorReply
from fastn_p2p_client.names import check_name

from .child import Child, ChildResources, ProcessState
from .descendants import StartedProcesses
from .fork_server import ForkFailed, ForkServer, ForkServerFailed
from .one_shot_process import OneShotProcess
from .restart_policy import CORE, IDENTITY, RestartHistory, Timeouts

PARALLEL_STARTS: Final = 8
"""Identities that are started at the same time. More would delay each other beyond their deadlines."""
REQUESTS_IN_FLIGHT: Final = 256
"""Requests of children that may wait for a reply."""
COUNTED_PER_TICK: Final = 32
"""Identities whose processes are counted at each tick after many processes were started on the machine, until each
identity's were counted once."""
COUNTED_ANYWAY: Final = 1
"""Identities whose processes are counted at each tick, beside those that have some or have started one."""

ALLOWED_REQUESTS: Final[Mapping[str, frozenset[type[Any]]]] = {
    "gateway": frozenset(
        {
            wire.StartIdentity,
            wire.StopIdentity,
            wire.EnsureOnline,
            wire.KeepAsleep,
            wire.GetProcesses,
            wire.RunWorker,
            wire.RestartNetwork,
            wire.LimitIdentity,
            wire.ChangeLogLevel,
        }
    ),
    "network": frozenset({wire.OpenConfig, wire.OpenSocket, wire.WakeIdentity}),
    "identity": frozenset({wire.OpenSocket, wire.FallAsleep}),
}
"""Requests that a child may make, by its role; all others are denied. The control channel identifies the child."""

log = logging.getLogger("supervisor")


def authorise(child: str, request: wire.Request) -> None:
    """Check that the child may make this request.

    Raises:
        Forbidden: the table does not list the request for this child.
    """
    role = "identity" if child.startswith("identity-") else child
    if type(request) not in ALLOWED_REQUESTS.get(role, frozenset()):
        raise Forbidden(role=child, request=type(request).__name__)


class ProcessTree:
    """Every child of the daemon. Create it inside the running event loop.

    Attributes:
        core: the core actors, in start order.
        identities: identities that run or should run, by name.
        failure: set to the reason, in plain words, when the daemon cannot go on.
    """

    def __init__(
        self,
        core: Iterable[ActorSpec],
        identity: Callable[[str], ActorSpec],
        forks: ForkServer,
        *,
        changed: Callable[[], None],
        flush: Callable[[], None] = lambda: None,
        sweep: Callable[[], None] = lambda: None,
        open_for: Callable[[str, wire.OpenSocket | wire.OpenConfig], int] | None = None,
        worker_account: Callable[[str], ProcessAccount | None] = lambda directory: None,
        on_ended: Callable[[str, bool], None] = lambda name, in_order: None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008  (immutable)
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Create the children of the core actors.

        Args:
            core: specifications of the core actors, in start order.
            identity: return the specification of an identity by its name.
            forks: starts the processes.
            changed: called whenever ``report`` has changed.
            flush: called before the reply to a command that has changed it: who has the reply may look.
            sweep: kill processes that were left behind.
            open_for: open a descriptor for a child, given its name and request; see ``DescriptorBroker``.
            worker_account: return the account of a worker, given the directory of its ``RunWorker``.
            on_ended: called with the name of each child whose process has ended, and True if it ended in order.
            timeouts: time limits.
            clock: return monotonic seconds.
            jitter: return numbers in [0, 1).
        """
        self._resources = ChildResources(forks, actor.main, timeouts, clock)
        self._identity = identity
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._log_level = ""
        """Level that was set while the daemon runs; empty for that of the start."""
        self._start_slots = asyncio.Semaphore(PARALLEL_STARTS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_tick = clock()
        self._next_counted = 0
        self._started = StartedProcesses()
        self._uncounted = 0
        """Identities whose processes were not counted since many were started on the machine."""
        self._with_descendants: set[Child] = set()
        """Identities whose protocols have started processes."""
        self._started_ms = boot_ms()
        self.changed = changed
        self._flush = flush
        self.sweep = sweep
        self._note_ended = on_ended
        self._workers: dict[tuple[Child, int], OneShotProcess] = {}
        self._open_for = open_for
        self._worker_account = worker_account
        self.failure: asyncio.Future[str] = self._loop.create_future()
        self.core = [Child(spec, RestartHistory(CORE, jitter), self._resources, self) for spec in core]
        self.identities: dict[str, Child] = {}
        self._asleep: set[str] = set()
        """Identities without a process that the network process may wake."""

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────

    def start(self, identities: Iterable[str]) -> None:
        """Start everything and return at once: the actors find each other by themselves."""
        for child in self.core:
            child.start()
        self.ensure_online(identities)
        self._tick()

    async def core_ready(self) -> None:
        """Wait until all core actors are ready at the same time."""
        while not self.healthy:
            for child in self.core:
                await child.healthy.wait()

    async def all_started(self) -> None:
        """Wait until all core actors are ready, and every identity has been ready or has failed once."""
        await self.core_ready()
        for child in list(self.identities.values()):
            await child.started_once.wait()

    async def stop(self, whole: float) -> None:
        """Stop everything in reverse order within ``whole`` seconds. Return once all processes are gone."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        timeouts = self._resources.timeouts
        end = self._loop.time() + whole
        groups = [list(self.identities.values()), *([child] for child in reversed(self.core))]
        for group in groups:
            grace = max(0.0, min(timeouts.drain, end - self._loop.time()))
            await asyncio.gather(*(child.stop(grace) for child in group))

    def kill(self) -> None:
        """Kill every process at once."""
        self._stopping = True
        for child in self._all_children():
            child.kill("killed by the operator")

    async def restart_core(self, name: str) -> None:
        """End a core actor after it has drained, start its next process, and wait until that one is ready."""
        for child in self.core:
            if child.name == name:
                await child.restart(self._resources.timeouts.drain)

    def keep(self, core: str, descriptor: int) -> None:
        """Own a descriptor for the next process of a core actor; -1 for none."""
        for child in self.core:
            if child.name == core:
                child.keep(descriptor)

    def kept(self, core: str) -> int:
        """Return the descriptor that is kept for a core actor; -1 for none."""
        return next((child.kept for child in self.core if child.name == core), -1)

    @property
    def healthy(self) -> bool:
        """True if every core actor is ready and sends heartbeats."""
        return all(child.healthy.is_set() for child in self.core)

    def report(self) -> list[wire.ProcessInfo]:
        """Return the state of the supervisor, then of every child."""
        state = ProcessState.STOPPING if self._stopping else ProcessState.READY
        own = wire.ProcessInfo("supervisor", os.getpid(), state, self._started_ms, 0, "", own_memory())
        return [own, *(child.report() for child in self._all_children())]

    # ── identities ───────────────────────────────────────────────────────────────────────────────

    async def start_identity(self, name: str) -> None:
        """Start the identity's process, and wait until it is ready.

        Raises:
            InvalidName: the name is no name of an identity.
            IdentityFailed: the process keeps ending, or was stopped meanwhile.
        """
        check_name(name, "an identity")
        self._asleep.discard(name)
        child = self.identities.get(name)
        if child is not None and child.state == ProcessState.STOPPING:
            await self.stop_identity(name)
        child = self._child_for(name)
        child.start()
        reason = await child.outcome()
        if reason:
            raise IdentityFailed(identity=name, reason=reason)

    async def stop_identity(self, name: str) -> None:
        """Stop the identity's process, and wait until it is gone. Nothing wakes it any more."""
        self._asleep.discard(name)
        child = self.identities.get(name)
        if child is not None:
            await child.stop(self._resources.timeouts.drain)
            if self.identities.get(name) is child:
                del self.identities[name]
            self.changed()

    def ensure_online(self, names: Iterable[str]) -> None:
        """Start identities that have no process yet, a few at a time. Return at once."""
        for name in names:
            check_name(name, "an identity")
            self._asleep.discard(name)
            if name not in self.identities:
                try:
                    self._spawn(self._start_queued(self._child_for(name)))
                except IdentityFailed as error:
                    log.error("%s", error)

    def keep_asleep(self, names: Iterable[str]) -> None:
        """Let the network process wake identities that have no process. Raises InvalidName."""
        self._asleep.update(name for name in names if check_name(name, "an identity") not in self.identities)

    async def wake_identity(self, name: str) -> None:
        """Start the process of an identity that is asleep or falls asleep, and wait until it is ready.

        Raises:
            IdentityFailed: it is not asleep, because its owner has taken it offline or it keeps ending.
        """
        child = self.identities.get(name)
        if name not in self._asleep and (child is None or child.state == ProcessState.FAILED):
            raise IdentityFailed(identity=name, reason="it is not asleep" if child is None else child.last_exit)
        await self.start_identity(name)

    def on_asleep(self, child: Child) -> None:
        """Forget the child: without a process, an identity costs the supervisor no more than its name."""
        name = next((each for each, known in self.identities.items() if known is child), None)
        if name is not None and not self._stopping:
            del self.identities[name]
            self._asleep.add(name)
            self.changed()

    def _child_for(self, name: str) -> Child:
        if self._stopping:
            raise IdentityFailed(identity=name, reason="the daemon is stopping")
        child = self.identities.get(name)
        if child is None:
            child = Child(self._identity(name), RestartHistory(IDENTITY, self._jitter), self._resources, self)
            self.identities[name] = child
        return child

    async def _start_queued(self, child: Child) -> None:
        async with self._start_slots:
            child.start()
            await child.started_once.wait()

    # ── events of children ───────────────────────────────────────────────────────────────────────────

    def on_request(self, child: Child, message: wire.ChildRequest, descriptors: list[int]) -> None:
        """Reply to a child's request, at once or later."""
        try:
            authorise(child.name, message.request)
            if len(self._tasks) >= REQUESTS_IN_FLIGHT:
                raise Overloaded(what="requests to the supervisor", limit=REQUESTS_IN_FLIGHT)
        except P2PError as error:
            log.warning("%s: %s", child.name, error)
            child.send(wire.ChildResponse(message.id, ErrorReply.of(error)), child.pid)
            return
        if isinstance(message.request, wire.OpenSocket | wire.OpenConfig):
            self._open(child, message.id, message.request)
        elif isinstance(message.request, wire.FallAsleep):
            child.fall_asleep()
            child.send(wire.ChildResponse(message.id, Ack()), child.pid)
        elif isinstance(message.request, wire.RunWorker):
            self._start_worker(child, message.id, message.request, descriptors)
        else:
            self._spawn(self._answer(child, child.pid, message))

    def on_ended(self, child: Child, in_order: bool) -> None:
        """Kill the workers of a child that has ended: no process waits for them any more."""
        for (owner, _), worker in list(self._workers.items()):
            if owner is child:
                worker.kill()
        self._note_ended(child.name, in_order)

    def end_worker(self, child: Child, number: int) -> None:
        """Kill the worker that the child has started with the request of this number, if it still runs."""
        worker = self._workers.get((child, number))
        if worker is not None:
            worker.kill()

    def on_crash_loop(self, child: Child) -> None:
        """Mark the daemon as failed if the child is a core actor."""
        log.error("%s keeps ending (%s). It is not restarted any more.", child.name, child.last_exit)
        if child in self.core:
            self.on_fatal_error(f"{child.name} keeps ending ({child.last_exit})")

    def on_fatal_error(self, reason: str) -> None:
        """Mark the daemon as failed."""
        if not self.failure.done():
            self.failure.set_result(reason)

    def _open(self, child: Child, number: int, request: wire.OpenSocket | wire.OpenConfig) -> None:
        """Open a descriptor for a child, at once, and send it."""
        descriptor = -1
        result: wire.Result
        try:
            if self._open_for is None:
                raise Forbidden(role=child.name, request=type(request).__name__)
            descriptor = self._open_for(child.name, request)
            result = wire.Opened()
        except P2PError as error:
            log.warning("%s", error)
            result = ErrorReply.of(error)
        except OSError as error:
            result = wire.Opened(error.errno or errno.EIO)
        child.send(wire.ChildResponse(number, result), child.pid, *([descriptor] if descriptor >= 0 else []))
        if descriptor >= 0:
            os.close(descriptor)

    def _start_worker(self, child: Child, number: int, request: wire.RunWorker, descriptors: list[int]) -> None:
        """Start a one-shot worker at once, and reply when it has ended."""
        try:
            account = self._worker_account(Path(request.directory).name)
            worker = OneShotProcess(self._resources.forks, descriptors, account)
        except ForkFailed as error:
            log.warning("a worker cannot be started: %s", error)
            failed = ErrorReply.of(DaemonBusy(actor="supervisor"))
            child.send(wire.ChildResponse(number, failed), child.pid)
        except ForkServerFailed as error:
            self.on_fatal_error(str(error))
        else:
            self._workers[child, number] = worker
            self._spawn(self._finish_worker(child, child.pid, number, worker, request.seconds))

    async def _finish_worker(self, child: Child, pid: int, number: int, worker: OneShotProcess, seconds: float) -> None:
        try:
            ended = await worker.end_within(seconds)
        finally:
            worker.close()
            del self._workers[child, number]
            self.sweep()
        child.send(wire.ChildResponse(number, ended), pid)

    async def _answer(self, child: Child, pid: int, message: wire.ChildRequest) -> None:
        """Reply to the process that sent the request. Its successor counts ids afresh and must not get the reply."""
        result: wire.Result
        try:
            result = await self._handle(message.request)
        except P2PError as error:
            result = ErrorReply.of(error)
        if isinstance(message.request, wire.StartIdentity | wire.StopIdentity | wire.RestartNetwork):
            self._flush()
        try:
            child.send(wire.ChildResponse(message.id, result), pid)
        except PayloadTooLarge as error:
            child.send(wire.ChildResponse(message.id, ErrorReply.of(error)), pid)

    async def _handle(self, request: wire.Request) -> wire.Result:
        match request:
            case wire.StartIdentity(name):
                await self.start_identity(name)
            case wire.StopIdentity(name):
                check_name(name, "an identity")
                await self.stop_identity(name)
            case wire.EnsureOnline(names):
                self.ensure_online(names)
            case wire.KeepAsleep(names):
                self.keep_asleep(names)
            case wire.WakeIdentity(name):
                await self.wake_identity(name)
            case wire.LimitIdentity(name=name):
                child = self.identities.get(check_name(name, "an identity"))
                if child is not None:
                    child.set_limits(request)
            case wire.ChangeLogLevel(level):
                self._change_log_level(level)
            case wire.RestartNetwork():
                await self.restart_core("network")
            case wire.GetProcesses():
                return wire.ProcessList(self.report())
        return Ack()

    def _change_log_level(self, level: str) -> None:
        """Change the level of this process, of all children, and of those that start later."""
        set_level(level)
        os.environ[LEVEL_VARIABLE] = self._log_level = level
        for child in self._all_children():
            child.send(wire.SetLogLevel(level), child.pid)

    def on_ready(self, child: Child) -> None:
        """Tell a new process the level, if it was changed since the fork server has started."""
        if self._log_level:
            child.send(wire.SetLogLevel(self._log_level), child.pid)

    # ── ticks ────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        """Kill hung children, and count and kill surplus processes.

        If this process itself was held up, a child's silence does not count.
        """
        if self._stopping:
            return
        now = self._resources.clock()
        tick = self._resources.timeouts.tick
        excused = now - self._last_tick > 2 * tick
        self._last_tick = now
        for child in self._all_children():
            child.check(now, excused=excused)
        self._count_descendants()
        self.sweep()
        self._loop.call_later(tick, self._tick)

    def _count_descendants(self) -> None:
        """Count the descendants of identities that had some at the last tick or have started one since.

        Counting takes some 50 µs per identity: half of the daemon's idle time with 100 of them. So the others are
        counted in turn, and quickly only after so many starts that their parents are not looked up.
        """
        children = list(self.identities.values())
        parents = self._started.parents()
        if parents is None:
            self._uncounted = len(children)
        size = max(min(self._uncounted, COUNTED_PER_TICK), COUNTED_ANYWAY)
        self._uncounted = max(self._uncounted - size, 0)
        start = self._next_counted % len(children) if children else 0
        self._next_counted = start + size
        chosen = {*(children[start:] + children[:start])[:size], *self._with_descendants}
        if parents:
            chosen.update(child for child in children if child.pid in parents)
        self._with_descendants = {child for child in chosen if child.count_descendants()}

    def _all_children(self) -> list[Child]:
        return [*self.core, *self.identities.values()]

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
