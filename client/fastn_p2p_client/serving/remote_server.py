"""Programs on another machine than the daemon that serve one of its bindings: ``listen_remotely``."""

from __future__ import annotations

import logging
import os
import secrets
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from ..errors import InvalidToken, P2PError, WrongDaemon
from ..ipc import messages as m
from ..ipc.request_channel import RequestChannel
from ..private_paths import read_private_file
from ..worker_token import WorkerToken, parse_address, parse_token
from .async_server import AsyncServer
from .handler_registry import IdentityHandlerRegistry
from .registrar import Registrar
from .registration import BindingRegistration
from .worker_connection import WorkerConnection

_WORKER_BYTES: Final = 7
_OWNERS_CHOICE: Final = ("peers",)
"""Access list in the registration. The daemon uses the one that the owner has set."""

log = logging.getLogger(__name__)


class RemoteServer(AsyncServer, IdentityHandlerRegistry):
    """Program that serves a binding of a daemon on another machine, over TLS. Use it inside one event loop.

    ::

        server = listen_remotely("daemon.example.org:4433", "work.token")
        server.handle_requests("Work", work)
        server.run()

    Any number of them may serve the same binding: each request goes to the least busy one. The connection is made again
    when it ends. A worker whose connection has ended counts as gone: its handlers are cancelled, and a call that is
    retried goes to another one.
    """

    def __init__(self, address: str, token: WorkerToken) -> None:
        """
        Args:
            address: ``HOST:PORT`` of the daemon, as in its setting ``worker.listen``.
            token: of the binding.

        Raises:
            ValueError: the address has no port.
        """
        self._address = parse_address(address)
        self._token = token
        self._number = secrets.token_bytes(_WORKER_BYTES)
        self._problem = ""
        AsyncServer.__init__(self)
        IdentityHandlerRegistry.__init__(self)

    @property
    def identity(self) -> str:
        """Name of the identity at its daemon."""
        return self._token.identity

    async def serve(self) -> None:
        """Serve until cancelled or until ``close`` is called; then accept no more requests, and finish those in flight.

        While the daemon cannot be reached, it tries again and says so in the log.

        Raises:
            TokenRefused: the owner of the daemon has revoked the token, or removed the protocol.
            WrongDaemon: another daemon answers than the one that has made the token.
            P2PError: another reason why the program cannot serve.
            ValueError: there is no handler, or one for another protocol than the token is for.
        """
        token = self._token
        names = {(protocol, instance or token.instance) for protocol, instance in self._handlers}
        if names != {(token.protocol, token.instance)}:
            raise ValueError(f"this token is for {token.protocol} ({token.instance}): serve that and nothing else")
        make_connection = partial(WorkerConnection, self._address, token.fingerprint, self._on_failure)
        make_channel = partial(RequestChannel, Path(), "network", connection=make_connection)
        registrar = self._registrar = _WorkerRegistrar(self._grant, make_channel, self.ready)
        registrar.number = self._number
        try:
            await registrar.run(self._register(registrar))
        finally:
            self._registrar = None

    async def _register(self, registrar: Registrar) -> None:
        (handlers,) = self._handlers.values()
        token = self._token
        await registrar.add(token.identity, token.protocol, token.instance, handlers, _OWNERS_CHOICE)
        registrar.initial_set_complete()

    async def _grant(self, _identity: str, _protocol: str, _instance: str) -> m.Grant:
        return m.Grant(self._token.secret, self._token.key, online=True)

    def _on_failure(self, reason: str | P2PError) -> None:
        if isinstance(reason, WrongDaemon):
            self._end(reason)
        elif reason != self._problem:
            self._problem = str(reason)
            log.warning("%s cannot be reached: %s. Retrying.", ":".join(map(str, self._address)), reason)

    def _end(self, error: P2PError) -> None:
        if self._registrar is not None:
            self._registrar.stop(error)


class _WorkerRegistrar(Registrar):
    number = b""
    """Number of the worker, by which the daemon knows it again."""

    def _registration_of(self, binding: BindingRegistration) -> m.RegisterBinding:
        return replace(binding.message(), worker=self.number)


def listen_remotely(address: str, token: str | os.PathLike[str]) -> RemoteServer:
    """Return a ``RemoteServer`` for the binding of a token.

    Args:
        address: ``HOST:PORT`` of the daemon, as in its setting ``worker.listen``.
        token: path of a file that only its owner can read, with what ``fastn-p2p worker-token`` has printed.

    Raises:
        InvalidToken: the file has no token, cannot be read, or can be read by others.
        ValueError: the address has no port.
    """
    try:
        text = read_private_file(Path(token))
    except ValueError as error:
        raise InvalidToken(reason=f"{token}: {error}") from None
    return RemoteServer(address, parse_token(text))
