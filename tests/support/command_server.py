"""Fork server for ``fastn-p2p`` commands: each command is a process, forked from one that has the imports.

Nine tenths of a short command's processor time are the imports that all commands have in common, 0.15 s, and the tests
run about a thousand commands. The process still has its own arguments, environment, directory, pipes and exit code.
Behaviour that only a start by the interpreter shows is tested with ``subprocess``, for instance in ``tests/unit/cli``.

The server's socket receives one byte for each command, with five descriptors: a file with the ``_Order``, the three
standard streams, and a pipe for the ``STATUS`` of the process: its pid when it starts, its return code when it ends.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import locale
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from .json_lines import check_json_lines

__all__ = ["CLOSED", "STATUS", "ServerOfProcess", "read_at_start", "run_command", "serve_forks"]

CLOSED: Final = "&-"
"""Standard output that is closed, as a shell writes it."""

_ROOT: Final = Path(__file__).resolve().parents[2]
STATUS: Final = struct.Struct("i")
_STARTED_ANEW: Final = ("daemon", "demo", "relay")
"""Commands that start processes with their interpreter, and so need one that was started as usual."""
_READ: Final = 65536
_CLONE_NEWNET: Final = 0x40000000
"""From linux/sched.h."""


class _Order(msgspec.Struct):
    """A command to run."""

    arguments: list[bytes]
    env: dict[bytes, bytes]
    directory: bytes
    closed: list[int]
    network: bytes
    """File of a network namespace to enter; empty for none."""


def run_command(
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    input: str | None,
    timeout: float,
    stdout: str = "",
    network: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends, as ``subprocess.run`` does with ``capture_output`` and ``text``.

    Lines of JSON are checked against the types that the command declares.

    Args:
        arguments: of ``fastn-p2p``.
        env: environment of the process.
        input: its standard input; None for an empty one.
        timeout: seconds after which it is killed.
        stdout: file that is its standard output, or ``CLOSED``; empty for a pipe, whose content is returned.
        network: file of the network namespace that it enters; empty for that of this process.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    command = [sys.executable, "-m", "fastn_p2p", *arguments]
    server = _server.get()
    closed = [1] if stdout == CLOSED else []
    if server.variables != read_at_start(env) or (arguments and arguments[0] in _STARTED_ANEW):
        assert not stdout, f"{arguments[0]} is run by a shell if its standard output matters"
        assert not network
        done = subprocess.run(
            command, env=env, input=input, stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        check_json_lines(arguments, done.stdout)
        return done
    with ExitStack() as stack:
        pipes = [stack.enter_context(_Pipe(writes)) for writes in (True, False, False, False)]
        theirs = [pipe.theirs for pipe in pipes]
        if stdout:
            theirs[1] = stack.enter_context(Path(os.devnull if closed else stdout).open("wb", buffering=0)).fileno()
        server.start(arguments, env, theirs, closed, network)
        for pipe in pipes:
            pipe.close_theirs()
        if not _communicate(pipes, (input or "").encode(locale.getencoding()), time.monotonic() + timeout):
            raise subprocess.TimeoutExpired(command, timeout)
    _, written, stderr, status = (bytes(pipe.data) for pipe in pipes)
    assert len(status) == 2 * STATUS.size, f"the process that waits for the end of {command} has ended"
    (code,) = STATUS.unpack_from(status, STATUS.size)
    check_json_lines(arguments, _text(written))
    return subprocess.CompletedProcess(command, code, _text(written), _text(stderr))


class _Pipe:
    """Pipe to or from a command. ``data`` is what was read from it."""

    def __init__(self, writes: bool) -> None:
        reader, writer = os.pipe()
        ours, self.theirs = (writer, reader) if writes else (reader, writer)
        os.set_blocking(ours, False)
        self.ours = io.FileIO(ours, "w" if writes else "r")
        self.data = bytearray()

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        self.ours.close()


def _communicate(pipes: list[_Pipe], input: bytes, deadline: float) -> bool:
    """Write the input, and read to the end. Return false, and kill the command, if that lasts beyond the deadline."""
    stdin, *readers, status = pipes
    with selectors.DefaultSelector() as selector:
        for pipe in (*readers, status):
            selector.register(pipe.ours, selectors.EVENT_READ, pipe)
        selector.register(stdin.ours, selectors.EVENT_WRITE, stdin)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                if len(status.data) == STATUS.size:
                    with suppress(ProcessLookupError):
                        os.kill(STATUS.unpack(status.data)[0], signal.SIGKILL)
                return False
            for key, _ in selector.select(left):
                pipe = key.data
                if pipe is not stdin:
                    chunk = pipe.ours.read(_READ)
                    pipe.data += chunk
                    over = not chunk
                else:
                    try:
                        input = input[pipe.ours.write(input) or 0 :] if input else input
                        over = not input
                    except BrokenPipeError:
                        over = True
                if over:
                    selector.unregister(pipe.ours)
                    pipe.ours.close()
    return True


def _text(data: bytes) -> str:
    """Decode as ``subprocess`` does with ``text=True``."""
    return data.decode(locale.getencoding()).replace("\r\n", "\n").replace("\r", "\n")


def read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter, or a module of ours, reads when it starts."""
    names = ("LC_", "LANG", "PYTHON", "FASTN_TRACE")
    return {key: value for key, value in env.items() if key.startswith(names) and key != "PYTHONPATH"}


# -- the server, as its user has it ------------------------------------------------------------------


class _Server:
    """Server for the commands that this process runs.

    Args:
        module: it runs ``serve_forks`` with the descriptor that is its argument.

    Attributes:
        variables: those that the server's interpreter has read.
    """

    def __init__(self, module: str) -> None:
        self._owner = os.getpid()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.variables = read_at_start(env)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                cwd=_ROOT, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def usable(self) -> bool:
        return self._owner == os.getpid() and self._process.poll() is None

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        descriptors: Sequence[int],
        closed: Sequence[int] = (),
        network: str = "",
    ) -> None:
        """Start a command. The descriptors are its three standard streams, and the pipe for its ``STATUS``."""
        variables = {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
        with os.fdopen(os.memfd_create("order"), "w+b") as order:
            order.write(
                msgspec.msgpack.encode(
                    _Order(
                        [*map(os.fsencode, arguments)], variables, bytes(Path.cwd()), [*closed], os.fsencode(network)
                    )
                )
            )
            order.flush()
            socket.send_fds(self._socket, [b"x"], [order.fileno(), *descriptors])

    def close(self) -> None:
        self._socket.close()
        if self._owner == os.getpid():
            self._process.wait()


class ServerOfProcess:
    """The server of a kind that this process has. It ends with the process."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._servers: list[_Server] = []
        self._lock = threading.Lock()
        atexit.register(self._close)

    def get(self) -> _Server:
        """Return the server. The first call starts it, or one after its end."""
        with self._lock:
            if not self._servers or not self._servers[0].usable:
                self._close()
                self._servers.append(_Server(self._module))
            return self._servers[0]

    def _close(self) -> None:
        while self._servers:
            self._servers.pop().close()


_server: Final = ServerOfProcess(__name__)


# -- the server --------------------------------------------------------------------------------------


def _serve_commands(connection: socket.socket) -> int:
    import fastn_p2p.__main__ as program
    from fastn_p2p.cli import main

    for module in ("fastn_p2p_client.client", "fastn_p2p.cli.status.dashboard"):
        importlib.import_module(module)  # nearly all commands need the first, and the second is the slowest to load

    def run(arguments: list[str]) -> int:
        sys.argv = [str(program.__file__), *arguments]
        return main()

    return serve_forks(connection, run)


def serve_forks(connection: socket.socket, run: Callable[[list[str]], int]) -> int:
    """Run commands until the other end of the socket is closed. Return the exit code, in a command's process too.

    Args:
        connection: of a ``_Server``.
        run: runs the command with its arguments, and returns its exit code.
    """
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads would not be there after a fork"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' Ctrl-C is not ours: their end is
    gc.collect()
    gc.freeze()  # else each process copies all of it when it ends, which costs more than the command
    while True:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 5)
        if not descriptors:
            return 0
        if os.fork() == 0:
            connection.close()
            order = _become_command(descriptors)
            return run([*map(os.fsdecode, order.arguments)])
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _become_command(descriptors: list[int]) -> _Order:
    """Fork again, and return in the new process, which is that of the command. The other one tells how it ends."""
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        order = msgspec.msgpack.decode(file.read(), type=_Order)
    if pid := os.fork():
        for descriptor in descriptors[1:4]:
            os.close(descriptor)
        try:
            os.write(descriptors[4], STATUS.pack(pid))
        except BrokenPipeError:  # its time is over already
            os.kill(pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            os.write(descriptors[4], STATUS.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        os._exit(0)
    for number, descriptor in enumerate(descriptors[1:4]):
        os.dup2(descriptor, number)
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    for number in order.closed:
        os.close(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _open_standard_streams(order.closed)
    os.chdir(order.directory)
    if order.network:
        _enter(order.network)
    os.environ.clear()
    os.environb.update(order.env)
    time.tzset()
    sys.path[0] = os.fsdecode(order.directory)
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.orig_argv = [sys.executable, "-m", "fastn_p2p", *map(os.fsdecode, order.arguments)]
    return order


def _enter(network: bytes) -> None:
    """Enter a network namespace, as this process has one thread (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(network, os.O_RDONLY)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {os.fsdecode(network)}")
    os.close(descriptor)


def _open_standard_streams(closed: Sequence[int]) -> None:
    """Open the three streams again, as an interpreter does for what descriptors 0 to 2 are now."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        stream = None if number in closed else open(  # noqa: SIM115
            number, "w" if number else "r", 1 if number == 2 else -1,
            encoding=before.encoding, errors=before.errors, newline="\n", closefd=False,
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    sys.exit(_serve_commands(socket.socket(fileno=int(sys.argv[1]))))
