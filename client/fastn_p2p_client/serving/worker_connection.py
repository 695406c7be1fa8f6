"""Connection of a worker to the daemon of another machine: TLS over TCP, to a daemon that proves itself."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from ..errors import P2PError, WrongDaemon
from ..ipc.reconnecting import ReconnectingConnection
from ..ipc.transport.native.connection import ZmtpConnection
from .tcp_options import KEEPALIVE

_CONNECT_SECONDS: Final = 10.0
"""Seconds of one attempt to connect."""


class WorkerConnection(ReconnectingConnection):
    """The transport of a worker. ``address`` and ``fingerprint`` come first; the rest is as for every transport.

    Args:
        address: host and TCP port of the daemon.
        fingerprint: SHA-256 of the daemon's certificate.
        on_failure: called with the reason when an attempt to connect has failed.
    """

    def __init__(
        self,
        address: tuple[str, int],
        fingerprint: bytes,
        on_failure: Callable[[str | P2PError], None],
        /,
        *arguments: Any,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._address = address
        self._fingerprint = fingerprint
        self._on_failure = on_failure
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # _check_daemon compares the whole certificate

    def _connect(self) -> None:
        self._opening = self._loop.create_task(self._open_tcp())

    async def _open_tcp(self) -> None:
        host, port = self._address
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                sock = await self._first_that_answers(found)
        except OSError as error:  # also TimeoutError
            reason = error.strerror or "it does not answer"
            self._on_failure(reason)
            self._on_failed_attempt()
            return
        self._connection = ZmtpConnection(
            sock,
            "DEALER",
            f"the connection to {host}:{port}",
            on_ready=self._on_ready,
            on_message=self._on_message,
            on_end=self._on_end,
            on_invalid=self._ignore_invalid,
            tls=self._context,
            on_encrypted=self._check_daemon,
        )
        self._connection.start()

    async def _first_that_answers(self, found: list[Any]) -> socket.socket:
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                for option, level, value in KEEPALIVE:
                    sock.setsockopt(level, option, value)
                await self._loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure or OSError("no address was found")

    def _check_daemon(self, certificate: bytes) -> bool:
        """Return whether this is the daemon that has made the token. Until then nothing is sent to it."""
        if hashlib.sha256(certificate).digest() == self._fingerprint:
            return True
        self._on_failure(WrongDaemon(address=f"{self._address[0]}:{self._address[1]}"))
        return False
