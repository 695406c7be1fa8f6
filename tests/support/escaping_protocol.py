"""Protocol whose code tries to leave the sandbox of its process."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import itertools
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from fastn_p2p_actors.runtime.sandbox.seccomp import syscall_number
from fastn_p2p_client import P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.protocol import Permissions, Protocol, request

__all__ = ["ATTEMPTS", "DONE", "Attempt", "Escaping"]

DONE = "done"
_libc = ctypes.CDLL(None, use_errno=True)


class Attempt(msgspec.Struct):
    """Order to the protocol: what it tries, and on what."""

    do: str
    path: str = ""
    """A file, a directory, a program or a socket."""
    pid: int = 0
    port: int = 0
    name: str = ""
    """An identity."""


class Escaping(Protocol):
    """Answers with ``DONE``, or with the error that stopped it."""

    public = True

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        permissions: list[str] = []

    config: Config

    @classmethod
    def permissions(cls, config: Config) -> Permissions:
        return Permissions.of(config.permissions)

    @request
    async def attempt(self, order: Attempt) -> str:
        try:
            outcome = ATTEMPTS[order.do](self, order)
            if asyncio.iscoroutine(outcome):
                await outcome
        except OSError as error:
            return type(error).__name__ if error.errno is None else os.strerror(error.errno)
        except P2PError as error:
            return error.code
        return DONE


def _syscall(name: str, *arguments: Any) -> None:
    numbers = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if _libc.syscall(ctypes.c_long(syscall_number(name)), *numbers) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _read(_: Escaping, order: Attempt) -> None:
    with Path(order.path).open("rb") as file:
        file.read(1)


def _fail_at(_: Escaping, order: Attempt) -> None:
    """Fail as code does that expects no refusal."""
    try:
        Path(order.path).read_bytes()
    except OSError as error:
        raise RuntimeError("no prices") from error


def _read_link(protocol: Escaping, order: Attempt) -> None:
    link = protocol.context.workspace / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(order.path)
    link.read_bytes()


def _hard_link(protocol: Escaping, order: Attempt) -> None:
    link = protocol.context.workspace / "hard"
    link.unlink(missing_ok=True)
    link.hardlink_to(order.path)


def _move_out(protocol: Escaping, order: Attempt) -> None:
    source = protocol.context.workspace / "moved"
    source.write_bytes(b"x")
    source.rename(Path(order.path) / "moved")


def _execute(_: Escaping, order: Attempt) -> None:
    subprocess.run([order.path], check=True)


def _fork(_: Escaping, __: Attempt) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _connect_unix(_: Escaping, order: Attempt) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(order.path)


def _connect_tcp(_: Escaping, order: Attempt) -> None:
    with socket.create_connection(("127.0.0.1", order.port), 5):
        pass


def _listen(_: Escaping, __: Attempt) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        pass


def _send_udp(_: Escaping, order: Attempt) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("127.0.0.1", order.port))


def _connect_by_fast_open(_: Escaping, order: Attempt) -> None:
    with socket.socket() as made:
        made.sendto(b"x", 0x20000000, ("127.0.0.1", order.port))


def _send_to_socket(_: Escaping, order: Attempt) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", order.path)


def _connect_to_abstract_socket(_: Escaping, __: Attempt) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("\0/tmp/.X11-unix/X0")


def _share_memory(*_: Any) -> None:
    found = _checked(_libc.shmget(0, 4096, 0o600))
    _checked(_libc.shmctl(found, 0, None))


def _share_queue(*_: Any) -> None:
    found = _checked(_libc.msgget(0, 0o600))
    _checked(_libc.msgctl(found, 0, None))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _execute_memory(*_: Any) -> None:
    """Execute an empty file: what the kernel says shows whether it would."""
    memory = os.memfd_create("program")
    try:
        _syscall("execveat", memory, b"", None, None, 0x1000)
    finally:
        os.close(memory)


def _find_descriptor(_: Escaping, order: Attempt) -> None:
    """Look for an inherited descriptor of a file in a directory."""
    for each in Path("/proc/self/fd").iterdir():
        if os.path.realpath(each).startswith(f"{order.path}/"):
            return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _raise_limit(*_: Any) -> None:
    """Set the limit of memory to what it is, as far as the kernel allows that."""
    limit = struct.pack("QQ", *(each & (1 << 64) - 1 for each in resource.getrlimit(resource.RLIMIT_DATA)))
    _syscall("prlimit64", 0, resource.RLIMIT_DATA, limit, None)


def _fill_disk(protocol: Escaping, _: Attempt) -> None:
    """Write until the disk is full, and go on whenever there is room again."""

    def fill() -> None:
        for number in itertools.count():
            with suppress(OSError):
                (protocol.context.workspace / f"filling-{number}").write_bytes(bytes(1 << 20))

    threading.Thread(target=fill, daemon=True).start()


def _read_memory(_: Escaping, order: Attempt) -> None:
    """Ask for no bytes: the kernel checks the permission first."""
    _syscall("process_vm_readv", order.pid, None, 0, None, 0, 0)


def _signal_by_descriptor(_: Escaping, order: Attempt) -> None:
    descriptor = os.pidfd_open(order.pid)
    try:
        signal.pidfd_send_signal(descriptor, 0)
    finally:
        os.close(descriptor)


async def _be_connected_to(protocol: Escaping, order: Attempt) -> None:
    (await protocol.context.connect_unix(order.path)).close()


async def _call_as(protocol: Escaping, order: Attempt) -> None:
    await protocol.context.client.call(order.name, order.name, "Echo", request={"message": "hi"})


async def _command(protocol: Escaping, message: Any) -> None:
    await protocol.context.client.control(message)


ATTEMPTS: Final[dict[str, Callable[[Escaping, Attempt], Any]]] = {
    "read": _read,
    "list": lambda _, order: list(Path(order.path).iterdir()),
    "fail at": _fail_at,
    "read a link to": _read_link,
    "link to": _hard_link,
    "write into": lambda _, order: (Path(order.path) / "written").write_bytes(b"x"),
    "overwrite": lambda _, order: os.close(os.open(order.path, os.O_WRONLY)),
    "truncate": lambda _, order: os.truncate(order.path, 0),
    "delete": lambda _, order: Path(order.path).unlink(),
    "make a directory in": lambda _, order: (Path(order.path) / "made").mkdir(exist_ok=True),
    "move out to": _move_out,
    "execute": _execute,
    "fork": _fork,
    "connect to the socket": _connect_unix,
    "connect by TCP": _connect_tcp,
    "connect by fast open": _connect_by_fast_open,
    "connect to an abstract socket": _connect_to_abstract_socket,
    "send to the socket": _send_to_socket,
    "share memory": _share_memory,
    "share a queue": _share_queue,
    "execute memory": _execute_memory,
    "find a descriptor of": _find_descriptor,
    "type into the terminal": lambda *_: _syscall("ioctl", 2, 0x5412, b"x"),
    "change the disk priority of": lambda _, order: _syscall("ioprio_set", 1, order.pid, 2 << 13 | 4),
    "listen": _listen,
    "send UDP": _send_udp,
    "raw socket": lambda *_: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "socket to datagrams": lambda *_: socket.socketpair(type=socket.SOCK_DGRAM),
    "trace": lambda _, order: _syscall("ptrace", 16, order.pid, 0, 0),
    "read memory": _read_memory,
    "take a descriptor": lambda _, order: _syscall("pidfd_getfd", os.pidfd_open(order.pid), 0, 0),
    "signal": lambda _, order: os.kill(order.pid, 0),
    "signal by descriptor": _signal_by_descriptor,
    "limit": lambda _, order: _syscall("prlimit64", order.pid, 7, None, None),
    "make slow": lambda _, order: os.setpriority(os.PRIO_PROCESS, order.pid, 19),
    "new namespace": lambda *_: _syscall("unshare", 0x10000000),
    "io_uring": lambda *_: _syscall("io_uring_setup", 1, None),
    "bpf": lambda *_: _syscall("bpf", 0, None, 0),
    "kernel keys": lambda *_: _syscall("keyctl", 0, -3, 0, 0, 0),
    "be connected to": _be_connected_to,
    "fill the disk": _fill_disk,
    "raise a limit": _raise_limit,
    "call as": _call_as,
    "create identity": lambda protocol, _: _command(protocol, m.CreateIdentity("mallory")),
    "delete identity": lambda protocol, order: _command(protocol, m.DeleteIdentity(order.name)),
    "add protocol": lambda protocol, order: _command(protocol, m.AddProtocol(order.name, "Echo", "mallory")),
    "read status": lambda protocol, _: _command(protocol, m.GetStatus()),
    "take offline": lambda protocol, order: _command(protocol, m.SetIdentityOnline(order.name, False)),
    "call": _call_as,
}
"""Each attempt by its name. Most change nothing when they succeed."""
