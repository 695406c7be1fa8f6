"""What an actor's code sees of its process, and the process's way from its first instruction to its exit.

An actor is a module with ``async def serve(stage: ActorContext) -> None``: it binds its mailbox, calls
``stage.ready()``, waits for ``stage.stopping``, drains and returns. Returning early or raising ends the process; the
supervisor starts it again with the same settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar, cast

import msgspec

from fastn_p2p_client.errors import DaemonBusy, DeadlineExceeded, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.plain_text import plain_lines

from . import control_channel as wire
from . import process_setup
from .connection_limits import ConnectionLimits
from .heap_watch import HeapWatch
from .log_files import configure_logging
from .specs import ActorSpec

__all__ = ["EXIT_FAILED", "EXIT_ORPHANED", "Actor", "ActorContext", "main"]

EXIT_FAILED: Final = 1
"""``serve`` raised; the log says what."""
EXIT_ORPHANED: Final = 70
"""The supervisor or the fork server is gone."""
LOOK_AGAIN: Final = 1.0
"""Seconds between looks at the heap of a process that has to give memory back, and much to do."""
MEASURE_SECONDS: Final = 30.0
"""Seconds between two looks at the memory that this process uses. Nobody else may look; each takes a millisecond."""
TEARDOWN_SECONDS: Final = 2
"""How long the event loop may take to close after ``serve`` has returned; then the kernel ends the process."""

Settings = TypeVar("Settings")


class Actor(Protocol):
    """A module that can be run as an actor."""

    async def serve(self, stage: ActorContext, /) -> None: ...


class ActorContext:
    """An actor's process as its code sees it. Made inside the running event loop.

    Without a leash (in a test that runs ``serve`` by itself) nobody listens: ``ready`` only sets ``is_ready``,
    and ``ask_supervisor`` fails with ``DaemonBusy``.

    Attributes:
        name: the actor's name, and its mailbox's.
        home: the daemon's home directory.
        spec: what the supervisor has decided for this process.
        stopping: set once the process is to drain and return from ``serve``.
        is_ready: set by ``ready``.
        log: the process's logger.
    """

    def __init__(self, spec: ActorSpec, leash: socket.socket | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        self.home = Home(Path(spec.home))
        self.log = logging.getLogger(spec.name)
        self.stop_requested = asyncio.Event()
        self.is_ready = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._leash = leash
        self._measure_at = 0.0
        self._heap = HeapWatch(self._run_in_thread)
        self._heap_again: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[wire.Result]] = {}
        if leash is not None:
            leash.setblocking(False)
            self._loop.add_reader(leash.fileno(), self._read, leash)

    @property
    def leash(self) -> int | None:
        """The leash's descriptor."""
        return None if self._leash is None else self._leash.fileno()

    def load_settings(self, kind: type[Settings]) -> Settings:
        """The actor's own settings, checked against the struct that describes them."""
        return msgspec.convert(self.spec.settings, kind)

    def connection_limits(self) -> ConnectionLimits:
        """Those of the actor's mailbox; the daemon's own processes are not among the programs."""
        return ConnectionLimits(self.spec.connections, is_own=process_setup.is_sibling)

    def ready(self) -> None:
        """Tells the supervisor that the actor serves, and from then on that its event loop turns."""
        if self.is_ready.is_set():
            return
        self.is_ready.set()
        self._send(wire.Ready())
        if self._leash is not None:
            self._loop.call_later(self.spec.heartbeat, self._beat)

    async def ask_supervisor(self, request: wire.Request, timeout: float) -> wire.Ack | wire.ProcessList:
        """The supervisor's answer.

        Raises:
            P2PError: what the supervisor says; ``DeadlineExceeded`` after ``timeout`` seconds; ``DaemonBusy`` when
                it takes no more requests; ``PayloadTooLarge``.
        """
        number = next(self._ids)
        answer: asyncio.Future[wire.Result] = self._loop.create_future()
        self._asked[number] = answer
        try:
            if not self._send(wire.ChildRequest(number, request)):
                raise DaemonBusy(actor="supervisor")
            async with asyncio.timeout(timeout):
                result = await answer
        except TimeoutError:
            raise DeadlineExceeded(seconds=timeout) from None
        finally:
            del self._asked[number]
        if isinstance(result, wire.ErrorReply):
            raise result.error()
        return result

    def report_fault_excluded(self) -> None:
        """Tells the supervisor that this process starts without what has ended those before it."""
        self._send(wire.FaultExcluded())

    def limit_processes(self, most: int) -> None:
        """Has the supervisor end what descends from this process when there is more than that; 0 for no limit."""
        self._send(wire.ProcessLimit(most))

    def report_exit_reason(self, reason: str) -> None:
        """Tells the supervisor why this process is about to exit."""
        self._send(wire.Exiting(reason[: wire.MAX_REASON]))

    def _beat(self) -> None:
        self._look_at_heap()
        memory = 0
        if self._loop.time() >= self._measure_at:
            self._measure_at = self._loop.time() + MEASURE_SECONDS
            memory = process_setup.own_memory()
        self._send(wire.Heartbeat(memory))
        self._loop.call_later(self.spec.heartbeat, self._beat)

    def _look_at_heap(self) -> None:
        if self._heap_again is not None:
            self._heap_again.cancel()
            self._heap_again = None
        if self._heap.look():
            self._heap_again = self._loop.call_later(LOOK_AGAIN, self._look_at_heap)

    def _run_in_thread(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # no memory for a thread: the limit of the identity
            _ = self._loop.run_in_executor(None, work)

    def _send(self, message: wire.FromChild) -> bool:
        if self._leash is None:
            return False
        try:
            return wire.send(self._leash, message)
        except OSError:
            self._exit_orphaned()
            return False

    def _read(self, leash: socket.socket) -> None:
        try:
            message = wire.receive_from_supervisor(leash)
        except BlockingIOError:
            return
        except (EOFError, OSError, wire.ControlProtocolError):
            self._exit_orphaned()
            return
        if isinstance(message, wire.Shutdown):
            self.stop_requested.set()
        else:
            answer = self._asked.get(message.id)
            if answer is not None and not answer.done():
                answer.set_result(message.result)

    def _exit_orphaned(self) -> None:
        """Nobody is left to restart this actor or to be served by it: no draining, no clean-up."""
        os._exit(EXIT_ORPHANED)


def main(spec_bytes: bytes, leash: socket.socket) -> None:
    """The whole life of a child of the fork server, given its ``ActorSpec`` in msgpack. Never returns.

    Exit code 0 after ``serve`` has returned, ``EXIT_FAILED`` after an exception, ``EXIT_ORPHANED`` when the
    supervisor is gone.
    """
    code = EXIT_FAILED
    try:
        if not process_setup.initialize_child(leash.fileno()):
            os._exit(EXIT_ORPHANED)
        spec = msgspec.msgpack.decode(spec_bytes, type=ActorSpec)
        process_setup.set_title(spec.name)
        log = configure_logging(Home(Path(spec.home)), spec.name)
        code = _run_actor(spec, leash, log)
    except BaseException:
        # Before there is a log, or while the event loop closes: the daemon's own stderr is all there is.
        sys.stderr.write(plain_lines(traceback.format_exc()))
    finally:
        try:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _run_actor(spec: ActorSpec, leash: socket.socket, log: logging.Logger) -> int:
    import uvloop

    code = EXIT_FAILED

    async def act() -> None:
        nonlocal code
        stage = ActorContext(spec, leash)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stage.stop_requested.set)
        try:
            actor = cast(Actor, importlib.import_module(spec.module))
            await actor.serve(stage)
            code = 0
        except P2PError as error:
            log.error("%s", error)
            stage.report_exit_reason(str(error))
        except BaseException as error:
            log.critical("uncaught exception", exc_info=True)
            stage.report_exit_reason(f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(TEARDOWN_SECONDS)

    uvloop.run(act())
    return code
