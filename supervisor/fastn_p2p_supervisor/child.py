"""Child of the supervisor: a process that is watched and restarted by the restart policy."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import replace

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.process_setup import boot_ms
from fastn_p2p_actors.runtime.specs import ActorSpec

from .child_observer import ChildObserver
from .descendants import descendants_of, end_descendants
from .fork_server import ForkedProcess, ForkFailed, ForkServer, ForkServerEnded, ForkServerFailed
from .process_limits import set_limits
from .restart_policy import RestartHistory, Timeouts

MESSAGES_PER_TICK: Final = 1000
"""Messages of one child between two ticks. A child that sends more is killed."""
EXIT_CODE_WAIT: Final = 0.1
"""Seconds from the end of a process until the fork server reports its exit code."""
CHANNEL_CLOSED_WAIT: Final = 1.0
"""Seconds that a process may live without its control channel. At its end, the channel closes a little earlier."""
RESTART_AFTER: Final = 1.0
"""Seconds that a process must have run before it may have itself restarted without counting as a crash."""
KILL_WAIT: Final = 2.0
"""Seconds that a process may take to disappear after SIGKILL, because it can be stuck in the kernel."""

KEEPERS: Final = frozenset({"vault"})
"""Children that may leave a descriptor for their next process."""
SENDERS: Final = KEEPERS | {"gateway"}
"""Children that may send descriptors."""

Target = Callable[..., None]
"""Called with the spec in msgpack, a control channel, and the kept descriptor if there is one."""
log = logging.getLogger("supervisor")


class ProcessState:
    """Values of ``ProcessInfo.state``."""

    STARTING: Final = "starting"
    READY: Final = "ready"
    BACKOFF: Final = "backoff"
    STOPPING: Final = "stopping"
    FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class ChildResources:
    """Resources shared by all children: fork server, entry point, timeouts, clock."""

    forks: ForkServer
    target: Target
    timeouts: Timeouts
    clock: Callable[[], float]


class Child:
    """Child of the supervisor, and its present process if there is one.

    Attributes:
        spec: specification with which each of its processes is started.
        state: one of ``ProcessState``.
        restarts: processes after the first one.
        last_exit: how the previous process ended.
        kept: descriptor for its next process, such as the page with the vault's master key; -1 for none.
        healthy: set while the process is ready and sends heartbeats.
        started_once: set once the first process was ready or has ended.
    """

    def __init__(
        self, spec: ActorSpec, history: RestartHistory, resources: ChildResources, observer: ChildObserver[Child]
    ) -> None:
        self.spec = spec
        self.state: str = ProcessState.STARTING
        self.restarts = 0
        self.last_exit = ""
        self.started_ms = 0
        self.kept = -1
        self._memory = 0
        self._most_processes = 0
        self._is_limited = False
        self._sandbox = self._refused = ""
        self.healthy = asyncio.Event()
        self.started_once = asyncio.Event()
        self._history = history
        self._resources = resources
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[str] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._fork: ForkedProcess | None = None
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._fault = ""
        self._last_fault = ""
        self._exit_reason = ""
        self._hung = self._was_ready = self._fault_excluded = self._restarting = self._is_planned = False
        self._is_falling_asleep = self._is_wanted = False
        self._started_at = self._last_received_at = 0.0
        self._budget = MESSAGES_PER_TICK

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        return self._fork.pid if self._fork is not None else 0

    def report(self) -> wire.ProcessInfo:
        last = self.last_exit
        return wire.ProcessInfo(
            self.name,
            self.pid,
            self.state,
            self.started_ms,
            self.restarts,
            last,
            self._memory,
            self._sandbox,
            self._refused,
        )

    # ── operations ───────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the process and keep it running. After a failure, forget the earlier restarts.

        If it is falling asleep, start the next one after it.
        """
        if self._is_falling_asleep and not self._is_wanted:
            self._is_wanted = True
            self._renew_outcome()
        if self._stopping or (self._task is not None and not self._task.done()):
            return
        self._history.reset()
        self._renew_outcome()
        self._enter(ProcessState.STARTING)
        self._task = self._loop.create_task(self._run(), name=f"keep {self.name}")
        self._task.add_done_callback(self._on_run_ended)

    def fall_asleep(self) -> None:
        """Expect the process to end in order, and do not start the next one unless ``start`` is called."""
        self._is_falling_asleep, self._is_wanted = True, False

    async def outcome(self) -> str:
        """Wait until the process is ready (empty) or will not be: the reason."""
        return await asyncio.shield(self._outcome)

    async def stop(self, grace: float) -> None:
        """End the process: SIGTERM, and SIGKILL after ``grace`` seconds. Return once it is gone."""
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

    async def restart(self, grace: float) -> None:
        """End the process as ``stop`` does, start the next one, and wait until it is ready.

        This is no crash: it does not count towards a crash loop. Without a process, only wait.
        """
        if self._fork is not None and not self._stopping:
            self._is_planned = True
            self.send(wire.Shutdown(), self.pid)
            self._fork.signal(signal.SIGTERM)
            exited = self._exited
            done, _ = await asyncio.wait([exited], timeout=grace)
            if not done:
                self.kill(f"did not stop within {grace:g} s")
                await asyncio.wait([exited], timeout=KILL_WAIT)
        await self.outcome()

    def kill(self, fault: str) -> None:
        """Send SIGKILL. ``fault`` becomes the reason of this process's end."""
        if self._fork is not None:
            self._fault = self._fault or fault
            self.healthy.clear()
            self._fork.signal(signal.SIGKILL)

    def send(self, message: wire.FromSupervisor, pid: int, *descriptors: int) -> None:
        """Send to the process ``pid`` if it is the present one. A process that does not read loses the message.

        The process gets copies of the descriptors.
        """
        if self._fork is None or self._fork.pid != pid:
            return
        try:
            if not wire.send(self._fork.channel, message, *descriptors):
                log.warning("%s does not read its control channel: a message was lost", self.name)
        except OSError:
            return

    def check(self, now: float, *, excused: bool) -> None:
        """Kill the process if it is silent for too long.

        Args:
            now: monotonic seconds.
            excused: True if this process was held up itself, so that the silence does not count.
        """
        self._budget = MESSAGES_PER_TICK
        if self._fork is None or self._stopping:
            return
        timeouts = self._resources.timeouts
        silence = timeouts.silence_of(self.spec.heartbeat)
        if self.state == ProcessState.STARTING:
            if now - self._started_at > timeouts.ready:
                self._hung = True
                self.kill(f"not ready within {timeouts.ready:g} s")
        elif excused:
            self._last_received_at = now
        elif now - self._last_received_at > silence:
            self._hung = True
            self.kill(f"no heartbeat for {silence:g} s")

    def set_limits(self, limits: wire.LimitIdentity) -> None:
        """Set the limits of the present process, if there is one. Hard limits from the daemon's start stay."""
        self._most_processes = limits.processes
        kinds = {
            resource.RLIMIT_DATA: limits.memory,
            resource.RLIMIT_FSIZE: limits.file_size,
            resource.RLIMIT_NOFILE: limits.open_files,
        }
        if self.pid:
            try:
                set_limits(self.pid, kinds)
            except (ProcessLookupError, FileNotFoundError):
                pass  # it has just ended: the next process reads them from the disk
            except OSError as error:
                log.error("%s has its new limits from its next start: %s", self.name, error)

    def count_descendants(self) -> bool:
        """Kill the process's descendants if there are more than it may have. Return whether there are any."""
        most = self._most_processes
        if not most or not self.pid:
            return False
        count = len(descendants_of(self.pid))
        if count > most:
            count = end_descendants(self.pid)
            self._observer.sweep()
            log.error("%s started %d processes, its limit is %d: all of them were killed", self.name, count, most)
        return count > 0

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        while True:
            self._enter(ProcessState.STARTING)
            counts = True
            try:
                spec = replace(self.spec, previous_exit=self._last_fault, previous_hung=self._hung)
                kept = (self.kept,) if self.kept >= 0 else ()
                order = msgspec.msgpack.encode(spec)
                self._on_started(self._resources.forks.start(self._resources.target, self.name, order, *kept))
            except ForkFailed as error:
                self.last_exit = f"cannot be started: {error}"
                counts = not isinstance(error, ForkServerEnded)
            else:
                await self._exited
                counts = self._on_ended()
            self.started_once.set()
            if self._stopping:
                return
            if self._is_falling_asleep:
                if self._is_wanted:
                    self._is_falling_asleep = False
                    continue
                self._resolve_outcome("it has fallen asleep")
                self._observer.on_asleep(self)
                return
            self._renew_outcome()
            delay = self._history.record_exit(self._resources.clock(), was_ready=self._was_ready) if counts else 0.0
            log.warning("%s ended (%s)", self.name, self.last_exit)
            if delay is None:
                self._enter(ProcessState.FAILED)
                self._resolve_outcome(self.last_exit)
                self._observer.on_crash_loop(self)
                return
            self.restarts += 1
            if delay:
                self._enter(ProcessState.BACKOFF)
                await asyncio.sleep(delay)

    def _on_run_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, ForkServerFailed):
                log.critical("%s cannot be kept running", self.name, exc_info=error)
            self.last_exit = str(error)
            self._enter(ProcessState.FAILED)
            self._resolve_outcome(self.last_exit)
            self._observer.on_fatal_error(str(error))

    def _on_started(self, fork: ForkedProcess) -> None:
        self._fork = fork
        self._fault = self._exit_reason = ""
        self._hung = False
        self._was_ready = self._fault_excluded = self._restarting = self._is_falling_asleep = False
        self._started_at = self._last_received_at = self._resources.clock()
        self.started_ms = boot_ms()
        self._memory = 0
        self._sandbox = self._refused = ""
        self._is_limited = False
        self._exited = self._loop.create_future()
        self._loop.add_reader(fork.pidfd, self._on_process_ended, fork)
        self._loop.add_reader(fork.channel.fileno(), self._read, fork)
        self._observer.changed()

    def _on_process_ended(self, fork: ForkedProcess) -> None:
        """Read the last messages of the process, then give the fork server a moment to report its exit code."""
        self._loop.remove_reader(fork.pidfd)
        self._loop.remove_reader(fork.channel.fileno())
        with suppress(OSError, EOFError, wire.ControlProtocolError):
            while self._budget > 0:
                self._on_message(*self._receive(fork.channel))
        status = fork.status

        def resolve_exited() -> None:
            self._loop.remove_reader(status)
            timer.cancel()
            if not self._exited.done():
                self._exited.set_result(None)

        timer = self._loop.call_later(EXIT_CODE_WAIT, resolve_exited)
        self._loop.add_reader(status, resolve_exited)

    def _on_ended(self) -> bool:
        """Close the ended process and record how it ended. Return whether its end counts as a restart."""
        fork = self._fork
        self._fork = None
        if fork is None:
            return True
        lost = fork.lost_its_server
        planned, self._is_planned = self._is_planned, False
        self._last_fault = ""
        if lost:
            self.last_exit = "killed together with the fork server"
        elif self._fault:
            self.last_exit = self._last_fault = self._fault
        else:
            code = fork.exit_code()
            how = _describe_exit(code)
            self.last_exit = f"{how}: {self._exit_reason}" if self._exit_reason else how
            if code is not None and code != -signal.SIGKILL:  # a process does not kill itself
                self._last_fault = self.last_exit
        in_order = fork.exit_code() == 0
        self._is_falling_asleep = self._is_falling_asleep and in_order and not (lost or self._fault)
        fork.close()
        self._observer.on_ended(self, in_order)
        self._observer.sweep()
        return not (lost or planned or (in_order and self._restarting))

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────

    def _read(self, fork: ForkedProcess) -> None:
        try:
            message, descriptors = self._receive(fork.channel)
        except BlockingIOError:
            return
        except wire.ControlProtocolError as error:
            self._loop.remove_reader(fork.channel.fileno())
            log.error("%s sent an invalid message on its control channel: %s", self.name, error)
            self.kill(f"sent an invalid message: {error}")
        except (EOFError, OSError):
            # Usually the process is just ending. A process that lives on without its channel must be killed.
            self._loop.remove_reader(fork.channel.fileno())
            self._loop.call_later(CHANNEL_CLOSED_WAIT, self._control_channel_closed, fork)
        else:
            self._on_message(message, descriptors)

    def _control_channel_closed(self, fork: ForkedProcess) -> None:
        if self._fork is fork and not self._exited.done():
            self.kill("closed its control channel")

    def _receive(self, channel: socket.socket) -> tuple[wire.FromChild, list[int]]:
        """Return the next message, and the descriptors that came with it."""
        if self.name not in SENDERS:
            return wire.receive_from_child(channel), []
        return wire.receive_with_descriptors(channel)

    def keep(self, descriptor: int) -> None:
        """Own a descriptor for the next process, in place of the one before; -1 for none."""
        if self.kept >= 0:
            os.close(self.kept)
        self.kept = descriptor

    def _on_message(self, message: wire.FromChild, descriptors: list[int]) -> None:
        """Handle a message, and close the descriptors that came with it, unless they are kept."""
        try:
            self._handle(message, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _handle(self, message: wire.FromChild, descriptors: list[int]) -> None:
        self._last_received_at = self._resources.clock()
        self._budget -= 1
        if self._budget < 0:
            self.kill(f"sent more than {MESSAGES_PER_TICK} messages in one tick")
        elif isinstance(message, wire.Ready):
            if self.state == ProcessState.STARTING:
                self._was_ready = True
                self._enter(ProcessState.READY)
                self._observer.on_ready(self)
                self.started_once.set()
                self._resolve_outcome("")
        elif isinstance(message, wire.Heartbeat):
            self._memory = message.memory or self._memory
        elif isinstance(message, wire.ProcessLimit):
            if not self._is_limited:  # protocol code that runs by now must not raise it
                self._is_limited = True
                self._most_processes = message.processes
        elif isinstance(message, wire.Sandboxed):
            self._sandbox = message.state[: wire.MAX_REASON]
            self._refused = message.refused[: wire.MAX_REASON]
        elif isinstance(message, wire.KeepDescriptor):
            if self.name in KEEPERS:
                self.keep(descriptors.pop() if descriptors else -1)
        elif isinstance(message, wire.ChildRequest):
            self._observer.on_request(self, message, descriptors)
        elif isinstance(message, wire.EndWorker):
            self._observer.end_worker(self, message.id)
        elif isinstance(message, wire.Exiting):
            self._exit_reason = message.reason[: wire.MAX_REASON]
        elif isinstance(message, wire.StayAwake):
            self._is_falling_asleep = False
            self._resolve_outcome("")
        elif isinstance(message, wire.Restarting):
            self._restarting = self._resources.clock() - self._started_at >= RESTART_AFTER
        elif not self._fault_excluded:
            self._fault_excluded = True
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
        self._observer.changed()


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
