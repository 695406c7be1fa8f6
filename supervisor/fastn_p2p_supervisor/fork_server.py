"""The fork server: where child processes come from.

It is ``multiprocessing``'s, with three things of ours: it and all its children die with the supervisor, at once and
however busy they are; children do not run the supervisor's ``__main__`` again; and there is no resource
tracker process, as nothing here has resources to track.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.specs import ActorSpec

from .restart_policy import RestartHistory

__all__ = ["ForkFailed", "ForkServer", "ForkServerFailed", "ForkedProcess"]

PRELOADED: Final = "fastn_p2p_supervisor.fork_server_preload"

_server: Any = vars(forkserver)["_forkserver"]
_tracker: Any = vars(resource_tracker)["_resource_tracker"]
log = logging.getLogger("supervisor")


class ForkFailed(Exception):
    """This process could not be started."""


class ForkServerFailed(Exception):
    """No process can be started any more."""


@dataclass(frozen=True, slots=True)
class ForkedProcess:
    """A process that was started: its descriptors belong to the holder."""

    pid: int
    pidfd: int
    """Readable once the process has ended."""
    leash: socket.socket
    process: ForkServerProcess
    server_pidfd: int

    @property
    def lost_its_server(self) -> bool:
        return _ended(self.server_pidfd)

    def signal(self, number: signal.Signals) -> None:
        """Reaches this process or none, never another one that has its number now."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def exit_code(self) -> int | None:
        """As ``multiprocessing`` has it (negative: the signal); None when it is not known (yet)."""
        code = self.process.exitcode
        return None if code == 255 and self.lost_its_server else code

    def close(self) -> None:
        """Gives up the descriptors."""
        self.leash.close()
        os.close(self.pidfd)
        with suppress(ValueError):  # still running, as far as the fork server has told
            self.process.close()


class ForkServer:
    """Starts processes; is started again, within limits, when it has died with all its children.

    All methods belong to the main thread: the kernel kills the fork server when the thread that started it ends.
    """

    def __init__(self, directory: Path, history: RestartHistory, clock: Callable[[], float] = time.monotonic) -> None:
        """``directory`` (private) takes the fork server's socket."""
        self._directory = directory
        self._history = history
        self._clock = clock
        self._pidfd: int | None = None
        self._retired: list[int] = []
        self._context = multiprocessing.get_context("forkserver")

    @property
    def pid(self) -> int:
        """Process id of the present fork server, 0 when there is none."""
        return _server._forkserver_pid or 0

    def ensure_running(self) -> None:
        """Starts the fork server without waiting until it is up.

        Raises:
            ForkServerFailed: it has died too often lately, or cannot be started.
        """
        if self._pidfd is not None:
            if not _ended(self._pidfd):
                return
            log.error("the fork server has died, and all children with it; starting it again")
            self._retired.append(self._pidfd)
            self._pidfd = None
            if self._history.record_exit(self._clock()) is None:
                raise ForkServerFailed("the fork server keeps dying")
        _refuse_resource_tracker()
        config: dict[str, Any] = vars(multiprocessing.current_process())["_config"]
        config["tempdir"] = str(self._directory)
        self._context.set_forkserver_preload([PRELOADED])
        try:
            with _isolated_start():
                forkserver.ensure_running()
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            raise ForkServerFailed(f"the fork server cannot be started: {error}") from error

    def start(self, target: Callable[[bytes, socket.socket], None], spec: ActorSpec) -> ForkedProcess:
        """A new process that runs ``target`` with the spec (msgpack) and its end of a leash. Takes some milliseconds.

        Raises:
            ForkFailed: try again later.
            ForkServerFailed: see ``ensure_running``.
        """
        self.ensure_running()
        if self._pidfd is None:
            raise ForkServerFailed("the fork server has been stopped")
        ours, theirs = wire.open_pair()
        process = self._context.Process(
            target=target, args=(msgspec.msgpack.encode(spec), theirs), name=spec.name, daemon=False
        )
        try:
            with _isolated_start():
                process.start()
            pid = process.pid or 0
            return ForkedProcess(pid, os.pidfd_open(pid), ours, process, self._pidfd)
        except (OSError, EOFError) as error:
            ours.close()
            reason = "the fork server has died" if _ended(self._pidfd) else "the system has no room for another process"
            raise ForkFailed(reason) from error
        finally:
            theirs.close()

    def stop(self) -> None:
        """Ends the fork server, and with it every child that is left."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            with suppress(OSError):
                _server._stop()
            self._retired.append(self._pidfd)
            self._pidfd = None
        for pidfd in self._retired:
            os.close(pidfd)
        self._retired.clear()
        if _tracker._fd is not None and _tracker._pid is None:
            os.close(_tracker._fd)
            _tracker._fd = None


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _refuse_resource_tracker() -> None:
    """Gives ``multiprocessing`` a tracker that swallows everything, in place of a process of its own."""
    if _tracker._fd is None:
        _tracker._fd = os.open(os.devnull, os.O_WRONLY)


@contextmanager
def _isolated_start() -> Iterator[None]:
    """What ``multiprocessing`` sees while it starts something.

    An empty ``__main__``, as children would otherwise import the command line's; and SIGINT blocked, which the new
    process inherits until it has decided what Ctrl-C means to it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.modules["__main__"] = main
