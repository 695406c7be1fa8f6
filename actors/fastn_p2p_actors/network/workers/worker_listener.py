"""Listener for workers on other machines: TLS, with limits for those that have shown no token."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.serving.tcp_options import KEEPALIVE

from ...daemon_settings.worker_address import parse_worker_address
from ...runtime.connection_limits import Process
from ...runtime.mailbox import Mailbox, Sender
from .worker_access import WorkerAccess

_WITHOUT_TOKEN: Final = 64
"""Connections that have shown no token. One more ends the oldest."""
_TOKEN_SECONDS: Final = 10.0
"""Seconds in which a connection has to show its token."""
_ACCEPTED_AT_ONCE: Final = 8
"""Connections that are accepted before other work runs: each handshake takes about a millisecond."""
_BACKLOG: Final = 128

log = logging.getLogger(__name__)


class WorkerListener:
    """Port at which workers connect.

    Args:
        mailbox: reads their messages.
        access: knows which have shown a token.
        directory: holds the certificate.
        wanted: host and port of the settings; empty to listen at none.

    Attributes:
        address: host and port; empty while nothing listens.
        problem: why nothing listens; empty if it does, or is not meant to.
        fingerprint: SHA-256 of the certificate.
    """

    def __init__(self, mailbox: Mailbox, access: WorkerAccess, directory: Path, wanted: str) -> None:
        self._mailbox = mailbox
        self._access = access
        self._directory = directory
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._without_token: dict[Sender, asyncio.TimerHandle] = {}
        self._numbers = itertools.count(1)
        self.address = ""
        self.problem = ""
        self.fingerprint = b""

    def open(self) -> None:
        """Listen from now on, unless this is done. What goes wrong is in ``problem``, and in the log."""
        address = self._wanted
        if self._socket is not None or not address:
            return
        from .worker_certificate import worker_context  # TLS takes megabytes

        listener: socket.socket | None = None
        try:
            host, port = parse_worker_address(address)
            self._tls, self.fingerprint = worker_context(self._directory)
            listener = socket.create_server((host, port), family=_family(host), backlog=_BACKLOG)
        except (OSError, ValueError, P2PError) as error:
            reason = getattr(error, "strerror", None) or error
            problem = f"workers on other machines cannot connect to {address}: {reason}"
            if problem != self.problem:
                log.error("%s", problem)
            self.problem = problem
            return
        listener.setblocking(False)
        self._socket = listener
        self.address, self.problem = address, ""
        self._loop.add_reader(listener, self._accept)
        log.info("workers on other machines may connect to %s", address)

    def close(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for timer in self._without_token.values():
            timer.cancel()

    def on_token(self, sender: Sender) -> None:
        """Set no time limit any more: the connection has shown a token, or has ended."""
        timer = self._without_token.pop(sender, None)
        if timer is not None:
            timer.cancel()

    def _accept(self) -> None:
        if self._socket is None:
            return
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, address = self._socket.accept()
            except OSError:  # none waits, or it has ended, or there is no descriptor
                return
            with suppress(OSError):
                accepted.setblocking(False)
                for option, level, value in KEEPALIVE:
                    accepted.setsockopt(level, option, value)
                self._adopt(accepted, str(address[0]))

    def _adopt(self, accepted: socket.socket, host: str) -> None:
        number = -next(self._numbers)
        sender = Sender(os.getuid(), number, is_remote=True)
        timer = self._loop.call_later(_TOKEN_SECONDS, self._end, sender)
        self._without_token[sender] = timer
        self._mailbox.adopt(accepted, Process(number, 0, 0, -1, f"a worker at {host}"), sender, self._tls)
        if len(self._without_token) > _WITHOUT_TOKEN:
            self._end(next(iter(self._without_token)))

    def _end(self, sender: Sender) -> None:
        self.on_token(sender)
        self._mailbox.end(sender)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
