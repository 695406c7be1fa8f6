"""A network namespace without a name: it lasts as long as the descriptor that this object holds, or a process in it."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute  # type: ignore[import-untyped]

__all__ = ["CLONE_NEWNET", "Namespace"]

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
"""Flag of ``unshare`` and ``setns``, from ``linux/sched.h``."""
_ENTER = Path(__file__).with_name("enter.py")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")


def _run_in_thread(function: Callable[[], T]) -> T:
    """Run the function in a thread of its own: ``unshare`` and ``setns`` change the calling thread alone."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _Netlink:
    """Netlink of one namespace: pyroute2's ``IPRoute``, in a thread that never leaves the namespace.

    pyroute2 opens a socket for each thread that uses it, and runs an event loop of its own for each request. Called
    in a test's thread it would change the machine's own network, and fail beside a running loop.
    """

    def __init__(self, enter: Callable[[], None]) -> None:
        self._thread = ThreadPoolExecutor(1, "netlink", initializer=enter)
        self._ip: Any = self._thread.submit(IPRoute).result()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._ip, name)
        return lambda *arguments, **options: self._thread.submit(method, *arguments, **options).result()

    def end(self) -> None:
        """Close the socket."""
        self._thread.submit(self._ip.close).result()
        self._thread.shutdown()


class Namespace:
    """A network namespace, with its loopback up.

    Attributes:
        fd: descriptor that keeps the namespace.
        inode: number by which ``/proc/PID/ns/net`` of a process in it is told from others.
        ip: netlink socket in it.
    """

    def __init__(self) -> None:
        def unshare() -> int:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = _run_in_thread(unshare)
        self.inode = os.fstat(self.fd).st_ino
        try:
            self._set_up()
        except BaseException:
            os.close(self.fd)
            raise

    def _set_up(self) -> None:
        self.sysctl(
            {
                "ipv4/conf/default/rp_filter": 0,
                "ipv4/conf/all/rp_filter": 0,
                "ipv4/conf/all/send_redirects": 0,
                "ipv4/conf/default/send_redirects": 0,
                "ipv4/ping_group_range": "0 2147483647",
                "ipv6/conf/default/accept_dad": 0,
                "ipv6/conf/default/accept_ra": 0,
                "ipv6/conf/default/router_solicitations": 0,
            }
        )
        self.ip = _Netlink(self._enter)
        self.ip.link("set", index=1, state="up")

    def close(self) -> None:
        """Give the namespace up: the kernel ends it with its last process."""
        self.ip.end()
        os.close(self.fd)

    def call(self, function: Callable[[], T]) -> T:
        """Run the function in a thread inside the namespace; sockets and threads that it makes stay inside."""

        def enter() -> T:
            self._enter()
            return function()

        return _run_in_thread(enter)

    def _enter(self) -> None:
        _check(_libc.setns(self.fd, CLONE_NEWNET), "setns")

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
        """Return a new socket of the namespace. The test uses it as any other."""
        return self.call(lambda: socket.socket(family, type, protocol))

    def sysctl(self, values: dict[str, int | str]) -> None:
        """Set values below ``/proc/sys/net``."""

        def write() -> None:
            for name, value in values.items():
                (Path("/proc/sys/net") / name).write_text(str(value))

        self.call(write)

    def index(self, name: str) -> int:
        """Return the index of the interface."""
        return int(self.ip.link_lookup(ifname=name)[0])

    @property
    def prefix(self) -> list[str]:
        """Command that runs the command after it in the namespace."""
        return [sys.executable, "-I", "-S", str(_ENTER), self.file]

    @property
    def file(self) -> str:
        """File of the namespace, by which others enter it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"
