"""Fork server, which starts the child processes.

It is that of ``multiprocessing`` with five changes. It and its children die with the supervisor, at once, however busy
they are. Children do not run the supervisor's ``__main__`` again. There is no resource tracker process, because there
are no resources to track. A child gets a ``ProcessOrder`` in place of pickled objects: whatever it runs before its
target costs memory in each child. The first fork server is a fork of the supervisor, so that both share what they have
loaded, 7 MB. A later one is a new program, because by then the supervisor knows secrets. So is the first one of a
supervisor that has opened the vault.
"""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import msgspec

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_client.plain_text import plain_lines

from .process_order import ProcessOrder
from .restart_policy import RestartHistory

PRELOADED: Final = "fastn_p2p_supervisor.fork_server_preload"
_END_SEEN_WITHIN: Final = 0.5
"""Seconds after a failed start in which the fork server may turn out to have died: its sockets close first."""

_server: Any = vars(forkserver)["_forkserver"]
_tracker: Any = vars(resource_tracker)["_resource_tracker"]
log = logging.getLogger("supervisor")


class ForkFailed(Exception):
    """A process could not be started."""


class ForkServerEnded(ForkFailed):
    """The fork server died meanwhile. The next start starts it again."""


class ForkServerFailed(Exception):
    """No process can be started any more."""


@dataclass(slots=True)
class ForkedProcess:
    """A started process. The holder owns its descriptors."""

    pid: int
    pidfd: int
    """Descriptor that is readable once the process has ended."""
    channel: socket.socket
    status: int
    """Descriptor that is readable once the fork server has reported the exit code, or has ended."""
    server_pidfd: int
    _code: int | None = None

    @property
    def lost_its_server(self) -> bool:
        return _ended(self.server_pidfd)

    def signal(self, number: signal.Signals) -> None:
        """Signal this process or none, never another one that has its pid now."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EBADF):  # EBADF: it had ended before it got a descriptor
                raise

    def exit_code(self) -> int | None:
        """Return the exit code (negative: the signal); None while it is not known, or if the fork server has ended."""
        if self._code is None and _is_readable(self.status):
            with suppress(OSError, EOFError):
                self._code = forkserver.read_signed(self.status)
        return self._code

    def close(self) -> None:
        """Close the descriptors."""
        self.channel.close()
        os.close(self.pidfd)
        os.close(self.status)


class ForkServer:
    """Starts processes. If the fork server dies with all its children, it is started again, within limits.

    Call all methods in the main thread: the kernel kills the fork server when the thread that started it ends.
    """

    def __init__(self, directory: Path, history: RestartHistory, clock: Callable[[], float] = time.monotonic) -> None:
        """Create it without starting the process. ``directory`` (private) holds the fork server's socket."""
        self._directory = directory
        self._history = history
        self._clock = clock
        self._pidfd: int | None = None
        self._retired: list[int] = []

    @property
    def pid(self) -> int:
        """Pid of the present fork server; 0 if there is none."""
        return _server._forkserver_pid or 0

    def start_as_fork(self, private: Iterable[int]) -> None:
        """Start the first fork server as a fork of this process, which loads before what children need.

        Call it before this process knows any secret, and starts any thread.

        Args:
            private: descriptors of this process that the fork server closes.

        Raises:
            ForkServerFailed: it cannot be started.
        """
        from . import fork_server_preload

        fork_server_preload.load()
        if not fork_server_preload.has_one_thread():  # a program of tests
            self.ensure_running()
            return
        gc.freeze()
        self._prepare_start()
        try:
            with _isolated_start(), socket.socket(socket.AF_UNIX) as listener:
                address = str(self._directory / f"listener-{os.getpid()}")
                listener.bind(address)
                listener.listen()
                reader, writer = os.pipe()
                pid = os.fork()
                if pid == 0:
                    _serve(listener.fileno(), reader, [writer, _tracker._fd, *private])
                os.close(reader)
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise ForkServerFailed(f"the fork server cannot be started: {error}") from error
        _server._forkserver_address, _server._forkserver_alive_fd, _server._forkserver_pid = address, writer, pid

    def ensure_running(self) -> None:
        """Start the fork server if it does not run, without waiting until it serves.

        Raises:
            ForkServerFailed: it died too often lately, or cannot be started.
        """
        if self._pidfd is not None:
            if not _ended(self._pidfd):
                return
            log.error("the fork server died, and all children with it; it is started again")
            self._retired.append(self._pidfd)
            self._pidfd = None
            if self._history.record_exit(self._clock()) is None:
                raise ForkServerFailed("the fork server keeps dying")
        self._prepare_start()
        forkserver.set_forkserver_preload([PRELOADED])
        try:
            with _isolated_start():
                forkserver.ensure_running()
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            raise ForkServerFailed(f"the fork server cannot be started: {error}") from error

    def _prepare_start(self) -> None:
        """Give ``multiprocessing`` the directory, and a tracker that discards everything instead of a process."""
        if _tracker._fd is None:
            _tracker._fd = os.open(os.devnull, os.O_WRONLY)
        config: dict[str, Any] = vars(multiprocessing.current_process())["_config"]
        config["tempdir"] = str(self._directory)

    def start(self, target: Callable[..., None], name: str, order: bytes, *descriptors: int) -> ForkedProcess:
        """Start a process that runs ``target`` with the order, its end of a control channel, and copies of descriptors.

        This takes some milliseconds.

        Args:
            target: function of a module that the process imports.
            name: name of the process, for errors.
            order: first argument of the function.
            descriptors: further arguments, after the control channel. The process gets copies.

        Raises:
            ForkServerEnded: the fork server died meanwhile. Try again at once.
            ForkFailed: the process could not be started. Try again later.
            ForkServerFailed: the fork server died too often lately, was stopped, or cannot be started.
        """
        self.ensure_running()
        if self._pidfd is None:
            raise ForkServerFailed("the fork server has been stopped")
        ours, theirs = wire.open_pair()
        message = msgspec.msgpack.encode(ProcessOrder(target.__module__, target.__qualname__, order))
        try:
            pid, status = self._request(message, (theirs.fileno(), *descriptors))
            return ForkedProcess(pid, open_pidfd(pid), ours, status, self._pidfd)
        except (OSError, EOFError) as error:
            ours.close()
            if _ended(self._pidfd, _END_SEEN_WITHIN):
                raise ForkServerEnded("the fork server died") from error
            raise ForkFailed("the system has no room for another process") from error
        finally:
            theirs.close()

    @staticmethod
    def _request(message: bytes, descriptors: tuple[int, ...]) -> tuple[int, int]:
        """Return the pid of a new process, and the descriptor of its exit code. Raises OSError, EOFError."""
        with _isolated_start():
            status, pipe = forkserver.connect_to_new_process(descriptors)
        try:
            with open(pipe, "wb") as order:  # noqa: PTH123  (a descriptor)
                order.write(message)
            return forkserver.read_signed(status), status
        except BaseException:
            os.close(status)
            raise

    def stop(self) -> None:
        """End the fork server, and with it every remaining child."""
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


def _serve(listener: int, alive: int, private: Iterable[int]) -> NoReturn:
    """Serve as the fork server in a fork of the supervisor."""
    from . import fork_server_preload

    try:
        for descriptor in private:
            os.close(descriptor)
        _tracker._fd = None
        fork_server_preload.become_fork_server()
        forkserver.main(listener, alive, [])
    except BaseException:
        sys.stderr.write(plain_lines(traceback.format_exc()))
        sys.stderr.flush()
    finally:
        os._exit(1)


def open_pidfd(pid: int) -> int:
    """Return a descriptor that is readable once the process has ended, also if it is gone already.

    A worker can be faster than the supervisor, which may have to wait for a processor before it gets here.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return os.eventfd(1, os.EFD_CLOEXEC)


def _ended(pidfd: int, within: float = 0.0) -> bool:
    """Return whether a process ends within so many seconds."""
    return _is_readable(pidfd, within)


def _is_readable(descriptor: int, within: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(within * 1000))


@contextmanager
def _isolated_start() -> Iterator[None]:
    """Hide this process's ``__main__`` and SIGINT from a process that ``multiprocessing`` starts.

    ``__main__`` is empty, because children would import the command line's. SIGINT is blocked. The new process inherits
    that until it has set its own handler.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.modules["__main__"] = main
