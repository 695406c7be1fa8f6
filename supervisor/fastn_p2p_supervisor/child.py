"""One child of the supervisor: a process, watched, and started again by the policy when it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec.structs import replace

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.process_setup import boot_ms
from fastn_p2p_actors.runtime.specs import ActorSpec

from .descendants import descendants_of, end_descendants
from .fork_server import (
    ForkedProcess,
    ForkFailed,
    ForkServer,
    ForkServerFailed,
)
from .restart_policy import (
    RestartHistory,
    Timeouts,
)

__all__ = ["Child", "ChildObserver", "ChildResources", "ProcessState"]

MESSAGES_PER_TICK: Final = 1000
"""More than this from one child, between two looks at it, is a fault of that child."""
EXIT_CODE_WAIT: Final = 0.1
"""Seconds between the end of a process and the fork server's word on how it ended."""
LEASH_WAIT: Final = 1.0
"""Seconds that a process may live without its leash: at its end, that goes a little earlier than the process."""
KILL_WAIT: Final = 2.0
"""Seconds that a process may take to disappear after SIGKILL (it can be stuck in the kernel)."""

Target = Callable[[bytes, socket.socket], None]
log = logging.getLogger("supervisor")


class ProcessState:
    """Values of ``ProcessStatus.state``."""

    STARTING: Final = "starting"
    READY: Final = "ready"
    BACKOFF: Final = "backoff"
    STOPPING: Final = "stopping"
    FAILED: Final = "failed"


class ChildObserver(Protocol):
    """Who has children."""

    def sweep(self) -> None:
        """A process has ended; it may have left others behind."""

    def changed(self) -> None:
        """Some child's report is another one now."""

    def on_request(self, child: Child, ask: wire.ChildRequest) -> None: ...

    def on_crash_loop(self, child: Child) -> None:
        """The child keeps crashing; it is not started again."""

    def on_fatal_error(self, reason: str) -> None:
        """No child can be kept any more."""


@dataclass(frozen=True, slots=True)
class ChildResources:
    """What every child is kept with."""

    forks: ForkServer
    target: Target
    patience: Timeouts
    clock: Callable[[], float]


class Child:
    """A place in the tree, and whatever process fills it at the moment.

    Attributes:
        spec: what each process in this place is started with.
        state: one of ``ProcessState``.
        restarts: processes after the first.
        last_exit: how the process before the present one ended.
        up: set while the process is ready and gives signs of life.
        tried: set once the first process was ready or has ended.
    """

    def __init__(self, spec: ActorSpec, history: RestartHistory, means: ChildResources, keeper: ChildObserver) -> None:
        self.spec = spec
        self.state: str = ProcessState.STARTING
        self.restarts = 0
        self.last_exit = ""
        self.started_ms = 0
        self._memory = 0
        self._most_processes = 0
        self.healthy = asyncio.Event()
        self.started_once = asyncio.Event()
        self._history = history
        self._means = means
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[str] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._fork: ForkedProcess | None = None
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._fault = ""
        self._last_fault = ""
        self._last_words = ""
        self._hung = self._was_ready = self._was_mended = False
        self._begun = self._heard = 0.0
        self._budget = MESSAGES_PER_TICK

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        return self._fork.pid if self._fork is not None else 0

    def report(self) -> wire.ProcessInfo:
        last = self.last_exit
        return wire.ProcessInfo(self.name, self.pid, self.state, self.started_ms, self.restarts, last, self._memory)

    # ── what the tree does with it ───────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Starts the process, and keeps it running from then on. For one that has failed, a new beginning."""
        if self._stopping or (self._task is not None and not self._task.done()):
            return
        self._history.reset()
        self._renew_outcome()
        self._enter(ProcessState.STARTING)
        self._task = self._loop.create_task(self._run(), name=f"keep {self.name}")
        self._task.add_done_callback(self._kept)

    async def outcome(self) -> str:
        """Waits until the process is ready (empty), or is not going to be: the reason."""
        return await asyncio.shield(self._outcome)

    async def stop(self, grace: float) -> None:
        """Ends the process: SIGTERM, and SIGKILL after ``grace`` seconds. Returns once it is gone."""
        self._stopping = True
        self._enter(ProcessState.STOPPING)
        if self._task is not None:
            if self._fork is None:
                self._task.cancel()
            else:
                self.send(wire.Shutdown(), self.pid)
                self._fork.signal(signal.SIGTERM)
            done, _ = await asyncio.wait([self._task], timeout=grace)
            if not done:
                self.kill(f"did not stop within {grace:g} s")
                await asyncio.wait([self._task], timeout=KILL_WAIT)
        self._resolve_outcome("it was stopped")
        self.started_once.set()

    def kill(self, fault: str) -> None:
        """SIGKILL; ``fault`` becomes the way in which this process has ended."""
        if self._fork is not None:
            self._fault = self._fault or fault
            self.healthy.clear()
            self._fork.signal(signal.SIGKILL)

    def send(self, message: wire.FromSupervisor, pid: int) -> None:
        """Sends to the process ``pid`` if that is the present one; one that does not read, or is gone, misses it."""
        if self._fork is None or self._fork.pid != pid:
            return
        try:
            if not wire.send(self._fork.leash, message):
                log.warning("%s does not read its leash", self.name)
        except OSError:
            return

    def check(self, now: float, *, excused: bool) -> None:
        """Kills the process if it is silent for too long. ``excused``: the silence may be the listener's fault."""
        self._budget = MESSAGES_PER_TICK
        if self._fork is None or self._stopping:
            return
        patience = self._means.patience
        silence = patience.silence_of(self.spec.heartbeat)
        if self.state == ProcessState.STARTING:
            if now - self._begun > patience.ready:
                self._hung = True
                self.kill(f"not ready within {patience.ready:g} s")
        elif excused:
            self._heard = now
        elif now - self._heard > silence:
            self._hung = True
            self.kill(f"no sign of life for {silence:g} s")

    def count_descendants(self) -> bool:
        """Return whether protocol code has started any process; all are ended when there are more than it may have."""
        most = self._most_processes
        if not most or not self.pid:
            return False
        count = len(descendants_of(self.pid))
        if count > most:
            count = end_descendants(self.pid)
            self._keeper.sweep()
            log.error("%s had started %d processes, and may have %d: all of them were killed", self.name, count, most)
        return count > 0

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        while True:
            self._enter(ProcessState.STARTING)
            counts = True
            try:
                spec = replace(self.spec, previous_exit=self._last_fault, previous_hung=self._hung)
                self._begin(self._means.forks.start(self._means.target, spec))
            except ForkFailed as error:
                self.last_exit = f"cannot be started: {error}"
            else:
                await self._exited
                counts = self._end()
            self.started_once.set()
            if self._stopping:
                return
            self._renew_outcome()
            delay = self._history.record_exit(self._means.clock(), was_ready=self._was_ready) if counts else 0.0
            log.warning("%s ended (%s)", self.name, self.last_exit)
            if delay is None:
                self._enter(ProcessState.FAILED)
                self._resolve_outcome(self.last_exit)
                self._keeper.on_crash_loop(self)
                return
            self.restarts += 1
            if delay:
                self._enter(ProcessState.BACKOFF)
                await asyncio.sleep(delay)

    def _kept(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, ForkServerFailed):
                log.critical("%s can no longer be kept", self.name, exc_info=error)
            self.last_exit = str(error)
            self._enter(ProcessState.FAILED)
            self._resolve_outcome(self.last_exit)
            self._keeper.on_fatal_error(str(error))

    def _begin(self, fork: ForkedProcess) -> None:
        self._fork = fork
        self._fault = self._last_words = ""
        self._hung = False
        self._was_ready = self._was_mended = False
        self._begun = self._heard = self._means.clock()
        self.started_ms = boot_ms()
        self._memory = 0
        self._exited = self._loop.create_future()
        self._loop.add_reader(fork.pidfd, self._gone, fork)
        self._loop.add_reader(fork.leash.fileno(), self._read, fork)
        self._keeper.changed()

    def _gone(self, fork: ForkedProcess) -> None:
        """The process has ended. What it said last is heard, then the fork server is given a moment to say how."""
        self._loop.remove_reader(fork.pidfd)
        self._loop.remove_reader(fork.leash.fileno())
        with suppress(OSError, EOFError, wire.ControlProtocolError):
            while self._budget > 0:
                self._take(wire.receive_from_child(fork.leash))
        sentinel = fork.process.sentinel

        def known() -> None:
            self._loop.remove_reader(sentinel)
            timer.cancel()
            if not self._exited.done():
                self._exited.set_result(None)

        timer = self._loop.call_later(EXIT_CODE_WAIT, known)
        self._loop.add_reader(sentinel, known)

    def _end(self) -> bool:
        """Puts the ended process away; whether its end counts against it."""
        fork = self._fork
        self._fork = None
        if fork is None:
            return True
        lost = fork.lost_its_server
        self._last_fault = ""
        if lost:
            self.last_exit = "killed together with the fork server"
        elif self._fault:
            self.last_exit = self._last_fault = self._fault
        else:
            code = fork.exit_code()
            ending = _ending(code)
            self.last_exit = f"{ending}: {self._last_words}" if self._last_words else ending
            if code is not None and code != -signal.SIGKILL:  # which nobody does to itself
                self._last_fault = self.last_exit
        fork.close()
        self._keeper.sweep()
        return not lost

    # ── what it says ─────────────────────────────────────────────────────────────────────────────

    def _read(self, fork: ForkedProcess) -> None:
        try:
            message = wire.receive_from_child(fork.leash)
        except BlockingIOError:
            return
        except wire.ControlProtocolError as error:
            self._loop.remove_reader(fork.leash.fileno())
            log.error("%s breaks the rules of its leash: %s", self.name, error)
            self.kill(f"sent what is no message: {error}")
        except (EOFError, OSError):
            # Most often the process is just ending; one that lives on without a leash cannot be kept.
            self._loop.remove_reader(fork.leash.fileno())
            self._loop.call_later(LEASH_WAIT, self._control_channel_closed, fork)
        else:
            self._take(message)

    def _control_channel_closed(self, fork: ForkedProcess) -> None:
        if self._fork is fork and not self._exited.done():
            self.kill("closed its leash")

    def _take(self, message: wire.FromChild) -> None:
        self._heard = self._means.clock()
        self._budget -= 1
        if self._budget < 0:
            self.kill(f"sent more than {MESSAGES_PER_TICK} messages in one tick")
        elif isinstance(message, wire.Ready):
            if self.state == ProcessState.STARTING:
                self._was_ready = True
                self._enter(ProcessState.READY)
                self.started_once.set()
                self._resolve_outcome("")
        elif isinstance(message, wire.Heartbeat):
            self._memory = message.memory or self._memory
        elif isinstance(message, wire.ProcessLimit):
            self._most_processes = message.processes
        elif isinstance(message, wire.ChildRequest):
            self._keeper.on_request(self, message)
        elif isinstance(message, wire.Exiting):
            self._last_words = message.reason[: wire.MAX_REASON]
        elif not self._was_mended:
            self._was_mended = True
            self._history.reset()

    def _renew_outcome(self) -> None:
        if self._outcome.done():
            self._outcome = self._loop.create_future()

    def _resolve_outcome(self, reason: str) -> None:
        if not self._outcome.done():
            self._outcome.set_result(reason)

    def _enter(self, state: str) -> None:
        if self._stopping:
            state = ProcessState.STOPPING
        if state == ProcessState.READY and not self._fault:
            self.healthy.set()
        else:
            self.healthy.clear()
        if state != self.state:
            self.state = state
            log.info("%s is %s", self.name, f"{state} (pid {self.pid})" if self.pid else state)
        self._keeper.changed()


def _ending(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
