"""Life of an actor process, and the context that its code gets.

An actor is a module with ``async def serve(context: ActorContext) -> None``. It binds its mailbox, calls
``context.ready()``, waits for ``context.stop_requested``, drains and returns. The process ends when ``serve`` returns
or raises. If the supervisor did not ask for that, it starts the actor again with the same settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, TypeVar, cast

import msgspec

from fastn_p2p_client.errors import DaemonBusy, DeadlineExceeded, Forbidden, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import ErrorReply
from fastn_p2p_client.ipc.transport.native.read_buffer import release_read_buffers
from fastn_p2p_client.plain_text import plain_lines

from . import control_channel as wire
from . import process_setup
from .connection_limits import ConnectionLimits
from .heap_watch import HeapWatch
from .log_files import configure_logging, confine_logging, create_log_file, set_level
from .sandbox.replaced_files import ReplacedFiles
from .sandbox.sandbox import CompiledSandbox, Sandbox, compile_in_fork, enter, enter_compiled
from .sandbox.seccomp import deny_io_uring
from .sandbox.states import CLOSED, SWITCHED_OFF
from .separate_users import ProcessAccount, become_user, make_runtime_directory, open_mailboxes, own_account
from .specs import ActorSpec

EXIT_FAILED: Final = 1
"""Exit code after ``serve`` has raised. The log says why."""
EXIT_ORPHANED: Final = 70
"""Exit code when the supervisor or the fork server is gone."""
HEAP_RECHECK_SECONDS: Final = 1.0
"""Seconds until the heap is checked again, if the process was too busy to trim it."""
MEASURE_SECONDS: Final = 30.0
"""Seconds between two measurements of the process's memory. Only the process itself may read it, in about 1 ms."""
MEASURE_AFTER_WORK: Final = 0.01
"""Seconds of processor time between two measurements: in less, memory does not change much. An idle process would spend
a third of its time with measuring else."""
OPEN_SECONDS: Final = 5.0
"""Seconds that the supervisor may take to connect a socket."""
WORKER_GRACE: Final = 5.0
"""Seconds in which the supervisor must reply after the time of a one-shot worker is over."""
WAKE_SECONDS: Final = 40.0
"""Seconds that an identity may take to wake, with failed attempts."""
OPENS_PER_WINDOW: Final = 200
OPEN_WINDOW_SECONDS: Final = 0.2
"""Sockets that are opened in so many seconds; further ones wait."""
OPEN_AGAIN_SECONDS: Final = 0.02
"""Seconds between two attempts to connect to a socket with a full queue. The kernel does not signal free space."""
TEARDOWN_SECONDS: Final = 2
"""Seconds that the event loop may take to close after ``serve`` has returned. Then SIGALRM ends the process."""

Settings = TypeVar("Settings")


class Actor(Protocol):
    """Module that can be run as an actor."""

    async def serve(self, context: ActorContext, /) -> None: ...


class ActorContext:
    """Context of an actor: its settings and its channel to the supervisor. Create it inside the running event loop.

    Without a control channel (a test that runs ``serve`` by itself), ``ready`` only sets ``is_ready``, and
    ``request_from_supervisor`` raises ``DaemonBusy``.

    Attributes:
        name: name of the actor and of its mailbox.
        home: the daemon's home directory.
        spec: the supervisor's specification of this process.
        stop_requested: set when the process must drain and return from ``serve``.
        is_ready: set by ``ready``.
        sandbox_state: result of ``enter_sandbox``; empty before it.
        log: logger of the process.
        kept_descriptor: descriptor that the process before has left with ``keep_descriptor``; None if there is none.
        listeners: mailboxes that were opened before the process took its user, by name; empty if it has none of its
            own.
    """

    def __init__(
        self,
        spec: ActorSpec,
        channel: socket.socket | None = None,
        kept: int | None = None,
        listeners: Mapping[str, socket.socket] = MappingProxyType({}),
    ) -> None:
        self.spec = spec
        self.kept_descriptor = kept
        self.listeners = listeners
        self.name = spec.name
        self.home = Home(Path(spec.home))
        self.log = logging.getLogger(spec.name)
        self.stop_requested = asyncio.Event()
        self.is_ready = asyncio.Event()
        self.sandbox_state = ""
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._opening_until = 0.0
        self._openings = 0
        self._measure_at = 0.0
        self._worked_at_measurement = -MEASURE_AFTER_WORK
        self._heap = HeapWatch(self._run_trim)
        self._heap_timer: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[wire.Result]] = {}
        self._descriptors: dict[int, int] = {}
        """Descriptors that replies brought, by the request's id."""
        if channel is not None:
            channel.setblocking(False)
            self._loop.add_reader(channel.fileno(), self._read, channel)

    @property
    def channel_descriptor(self) -> int | None:
        """Descriptor of the control channel; None without one."""
        return None if self._channel is None else self._channel.fileno()

    def load_settings(self, kind: type[Settings]) -> Settings:
        """Return the actor's settings, validated against the struct ``kind``."""
        return msgspec.convert(self.spec.settings, kind)

    def connection_limits(self) -> ConnectionLimits:
        """Return new limits for the actor's mailbox. The daemon's own processes do not count as programs."""
        return ConnectionLimits(
            self.spec.connections, is_own=process_setup.is_sibling, supervisor=process_setup.supervisor_pid()
        )

    def ready(self) -> None:
        """Tell the supervisor that the actor serves, and begin to send heartbeats."""
        if self.is_ready.is_set():
            return
        self.is_ready.set()
        if process_setup.is_actor_process():
            process_setup.release_unused_stack()
        self._send(wire.Ready())
        if self._channel is not None:
            self._loop.call_later(self.spec.heartbeat, self._send_heartbeat)

    async def request_from_supervisor(self, request: wire.Request, timeout: float) -> wire.Result:
        """Send a request to the supervisor and return its reply.

        Raises:
            DeadlineExceeded: no reply within ``timeout`` seconds.
            DaemonBusy: the supervisor reads no more requests at the moment.
            PayloadTooLarge: the request does not fit into one packet.
            P2PError: the error that the supervisor replied with.
        """
        return (await self._request(request, timeout))[0]

    async def run_worker(self, seconds: float, *descriptors: int, directory: str = "") -> wire.WorkerEnded:
        """Have the supervisor run a one-shot worker, and wait until it has ended. If this is cancelled, it is killed.

        Args:
            seconds: time after which it is killed.
            descriptors: socket for the task and the reply, and pipe or socket for its output.
            directory: as in ``RunWorker``.

        Raises:
            DaemonBusy: it could not be started.
            DeadlineExceeded: the supervisor does not reply.
        """
        result, _ = await self._request(wire.RunWorker(seconds, directory), seconds + WORKER_GRACE, *descriptors)
        return result if isinstance(result, wire.WorkerEnded) else wire.WorkerEnded(None)

    async def _request(
        self, request: wire.Request, timeout: float, *descriptors: int
    ) -> tuple[wire.Result, int | None]:
        number = next(self._ids)
        response: asyncio.Future[wire.Result] = self._loop.create_future()
        self._pending[number] = response
        try:
            if not self._send(wire.ChildRequest(number, request), *descriptors):
                raise DaemonBusy(actor="supervisor")
            async with asyncio.timeout(timeout):
                result = await response
            if isinstance(result, ErrorReply):
                raise result.error()
            return result, self._descriptors.pop(number, None)
        except TimeoutError:
            raise DeadlineExceeded(seconds=timeout) from None
        except asyncio.CancelledError:
            if isinstance(request, wire.RunWorker):
                self._send(wire.EndWorker(number))
            raise
        finally:
            del self._pending[number]
            unused = self._descriptors.pop(number, None)
            if unused is not None:
                os.close(unused)

    async def open_socket(self, path: Path) -> socket.socket:
        """Return a non-blocking socket that the supervisor has connected to the Unix socket at ``path``.

        While the queue there is full, this asks again.

        Raises:
            OSError: it could not connect. ``PermissionError``: the process may not connect there.
        """
        while True:
            await self._pace_opening()
            try:
                opened = socket.socket(fileno=await self._open(wire.OpenSocket(os.fsdecode(path))))
            except BlockingIOError:
                await asyncio.sleep(OPEN_AGAIN_SECONDS)
            else:
                opened.setblocking(False)
                return opened

    async def open_config(self) -> int:
        """Return a descriptor of ``config.toml``, which the supervisor has opened. Raises OSError."""
        return await self._open(wire.OpenConfig())

    async def _open(self, request: wire.Request) -> int:
        """Return the descriptor that the reply brings. Raises OSError, ``PermissionError`` if it is forbidden."""
        try:
            result, descriptor = await self._request(request, OPEN_SECONDS)
        except Forbidden as error:
            raise PermissionError(errno.EPERM, str(error)) from None
        except P2PError as error:
            raise OSError(errno.EIO, str(error)) from error
        if descriptor is not None:
            return descriptor
        code = result.error if isinstance(result, wire.Opened) and result.error else errno.EIO
        raise OSError(code, os.strerror(code))

    async def _pace_opening(self) -> None:
        """Wait if many sockets were opened lately: the supervisor ends a child that sends too many messages."""
        while True:
            now = self._loop.time()
            if now >= self._opening_until:
                self._opening_until, self._openings = now + OPEN_WINDOW_SECONDS, 0
            if self._openings < OPENS_PER_WINDOW:
                self._openings += 1
                return
            await asyncio.sleep(self._opening_until - now)

    def enter_sandbox(self, sandbox: Sandbox | CompiledSandbox | Callable[[], Sandbox]) -> None:
        """Confine this process for ever, and tell the supervisor how far that went.

        Call it before the process takes input, and before it starts a thread. Tests run several actors in one process:
        there nothing is confined.
        """
        if not process_setup.is_actor_process():
            return
        if not self.spec.sandbox:
            self.sandbox_state = SWITCHED_OFF
        else:
            compiled = compile_in_fork(sandbox) if callable(sandbox) else sandbox
            self.sandbox_state = enter(compiled) if isinstance(compiled, Sandbox) else enter_compiled(compiled)
        if self.sandbox_state not in (CLOSED, SWITCHED_OFF):
            self.log.warning("the sandbox is %s", self.sandbox_state)
        self._send(wire.Sandboxed(self.sandbox_state))

    def report_refused(self, attempts: str) -> None:
        """Tell the supervisor what the sandbox has refused so far, for ``status``."""
        self._send(wire.Sandboxed(self.sandbox_state, attempts[: wire.MAX_REASON]))

    @property
    def is_apart(self) -> bool:
        """True if the supervisor has to open for this process what it may not open: files, and sockets of others."""
        return self.is_confined or own_account() is not None

    @property
    def is_confined(self) -> bool:
        """True if this process has entered its sandbox."""
        return self.sandbox_state not in ("", SWITCHED_OFF)

    def report_fault_excluded(self) -> None:
        """Tell the supervisor that this process started without the binding that crashed the processes before it."""
        self._send(wire.FaultExcluded())

    def limit_processes(self, most: int) -> None:
        """Have the supervisor kill descendants of this process above ``most`` processes; 0 for no limit."""
        self._send(wire.ProcessLimit(most))

    def keep_descriptor(self, descriptor: int) -> None:
        """Have the supervisor keep a copy of the descriptor for the next process of this actor; -1 for none."""
        self._send(wire.KeepDescriptor(), *([descriptor] if descriptor >= 0 else []))

    async def wake_identity(self, name: str) -> None:
        """Have the supervisor start the process of an identity that is asleep, and wait until it is ready.

        Raises:
            IdentityFailed: it is not asleep, or its process keeps ending.
            P2PError: the supervisor does not answer.
        """
        await self.request_from_supervisor(wire.WakeIdentity(name), WAKE_SECONDS)

    async def fall_asleep(self) -> None:
        """Tell the supervisor that this process will end in order, because its identity falls asleep.

        Raises:
            P2PError: the supervisor does not answer.
        """
        await self.request_from_supervisor(wire.FallAsleep(), OPEN_SECONDS)

    def stay_awake(self) -> None:
        """Tell the supervisor that this process goes on after ``fall_asleep``."""
        self._send(wire.StayAwake())

    def restart(self) -> None:
        """Drain, and have the supervisor start this process again."""
        self._send(wire.Restarting())
        self.stop_requested.set()

    async def restart_when_replaced(self, files: ReplacedFiles) -> None:
        """Restart this process once a path leads to another file than before, to which its sandbox has no right."""
        path = await files.wait()
        self.log.info("%s leads to another file than at the start of this process, which is started again", path)
        self.restart()

    def report_exit_reason(self, reason: str) -> None:
        """Tell the supervisor why this process is about to exit."""
        self._send(wire.Exiting(reason[: wire.MAX_REASON]))

    def _send_heartbeat(self) -> None:
        self._check_heap()
        self._send(wire.Heartbeat(self._memory_if_due()))
        self._loop.call_later(self.spec.heartbeat, self._send_heartbeat)

    def _memory_if_due(self) -> int:
        """Return the memory of this process, or 0 if it is not time to measure it."""
        now = self._loop.time()
        if now < self._measure_at:
            return 0
        self._measure_at = now + MEASURE_SECONDS
        if time.process_time() - self._worked_at_measurement < MEASURE_AFTER_WORK:
            return 0
        memory = process_setup.own_memory()
        self._worked_at_measurement = time.process_time()
        return memory

    def _check_heap(self) -> None:
        if self._heap_timer is not None:
            self._heap_timer.cancel()
            self._heap_timer = None
        if self._heap.check():
            self._heap_timer = self._loop.call_later(HEAP_RECHECK_SECONDS, self._check_heap)

    def _run_trim(self, trim: Callable[[], None]) -> None:
        release_read_buffers()
        with contextlib.suppress(RuntimeError):  # no memory for a thread: the identity is at its limit
            _ = self._loop.run_in_executor(None, trim)

    def _send(self, message: wire.FromChild, *descriptors: int) -> bool:
        if self._channel is None:
            return False
        try:
            return wire.send(self._channel, message, *descriptors)
        except OSError:
            self._exit_orphaned()
            return False

    def _read(self, channel: socket.socket) -> None:
        try:
            message, descriptor = wire.receive_from_supervisor(channel)
        except BlockingIOError:
            return
        except (EOFError, OSError, wire.ControlProtocolError):
            self._exit_orphaned()
            return
        if isinstance(message, wire.Shutdown):
            self.stop_requested.set()
        elif isinstance(message, wire.SetLogLevel):
            set_level(message.level)
        else:
            response = self._pending.get(message.id)
            if response is not None and not response.done():
                response.set_result(message.result)
                if descriptor is not None:
                    self._descriptors[message.id] = descriptor
                return
        if descriptor is not None:
            os.close(descriptor)  # the request has ended meanwhile

    def _exit_orphaned(self) -> None:
        """Exit at once. The daemon is gone, so draining and cleaning up would serve no process."""
        os._exit(EXIT_ORPHANED)


def main(spec_bytes: bytes, channel: socket.socket, kept: int | None = None) -> None:
    """Run a child of the fork server from its start to its exit. Never returns.

    The exit code is 0 after ``serve`` has returned, ``EXIT_FAILED`` after an exception, ``EXIT_ORPHANED`` when the
    supervisor is gone.

    Args:
        spec_bytes: the ``ActorSpec`` in msgpack.
        channel: the child's end of the control channel.
        kept: descriptor that an earlier process of the actor has left for this one.
    """
    code = EXIT_FAILED
    try:
        spec = msgspec.msgpack.decode(spec_bytes, type=ActorSpec)
        listeners = {} if spec.account is None else _switch_user(spec, spec.account)
        if not process_setup.initialize_child(channel.fileno(), 0o077 if spec.account is None else spec.account.umask):
            os._exit(EXIT_ORPHANED)
        if kept is not None:
            os.set_inheritable(kept, False)
        process_setup.set_title(spec.name)
        log = configure_logging(Home(Path(spec.home)), spec.name)
        if spec.account is not None:
            confine_logging()
        code = _run_actor(spec, channel, log, kept, listeners)
    except BaseException:
        # No log file is open before logging is configured, or while the loop closes: write to the daemon's stderr.
        sys.stderr.write(plain_lines(traceback.format_exc()))
    finally:
        try:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _switch_user(spec: ActorSpec, account: ProcessAccount) -> dict[str, socket.socket]:
    """Open what only root may open, and become the user of the account. Return the mailboxes."""
    home = Home(Path(spec.home))
    listeners = open_mailboxes(home, spec.name, account)
    make_runtime_directory(home, spec.name, account)
    create_log_file(home, spec.name, account.uid)
    become_user(account)
    return listeners


def _run_actor(
    spec: ActorSpec,
    channel: socket.socket,
    log: logging.Logger,
    kept: int | None,
    listeners: Mapping[str, socket.socket],
) -> int:
    import uvloop

    if spec.sandbox:
        deny_io_uring()
    code = EXIT_FAILED

    async def run() -> None:
        nonlocal code
        loop = asyncio.get_running_loop()
        process_setup.release_zero_pages(id(loop), sys.getsizeof(loop))
        context = ActorContext(spec, channel, kept, listeners)
        loop.add_signal_handler(signal.SIGTERM, context.stop_requested.set)
        try:
            actor = cast(Actor, importlib.import_module(spec.module))
            await actor.serve(context)
            code = 0
        except P2PError as error:
            log.error("%s", error)
            context.report_exit_reason(str(error))
        except BaseException as error:
            log.critical("uncaught exception", exc_info=True)
            context.report_exit_reason(f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(TEARDOWN_SECONDS)

    uvloop.run(run())
    return code
