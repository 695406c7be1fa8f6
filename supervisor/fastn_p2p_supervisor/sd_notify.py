"""Notifications to a service manager: ready, stopping, watchdog. The protocol is that of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final, Self

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Environment variables of the service manager."""


class SystemdNotifier:
    """Notifies the service manager. Without one, it does nothing.

    It never raises or blocks: a service manager that does not read is no reason to end.

    Attributes:
        watchdog: seconds between two calls of ``alive``, half of the service manager's limit; None if it does not
        watch.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        """Open the socket. ``address`` is a path, or an abstract name that begins with ``@``."""
        self.watchdog = watchdog
        self._socket: socket.socket | None = None
        if address is None or not address.startswith(("/", "@")):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str], pid: int) -> Self:
        """Read and remove the environment variables, so that no child notifies in the daemon's name.

        ``WATCHDOG_USEC`` counts only if ``WATCHDOG_PID`` is absent or equal to ``pid``.
        """
        address, micros, meant_for = (environment.pop(name, "") for name in VARIABLES)
        watchdog = None
        if address and micros.isdecimal() and int(micros) > 0 and meant_for in ("", str(pid)):
            watchdog = int(micros) / 1e6 / 2
        return cls(address or None, watchdog)

    @property
    def descriptors(self) -> list[int]:
        """Descriptors that are open."""
        return [] if self._socket is None else [self._socket.fileno()]

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={_line(status)}\nMAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={_line(status)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            return


def _line(text: str) -> str:
    return text.replace("\n", " ")
