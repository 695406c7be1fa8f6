"""Programs that serve as one identity: ``listen`` and ``Server``.

Requests and sessions reach the handlers of a program as they reach a protocol that the daemon hosts. The program never
sees a key. ``binding_server`` serves every identity that has a binding for the program.
"""

from __future__ import annotations

import os

from ..client import Client
from ..home import Home
from ..ipc.transport.base import TransportName
from ..names import check_name
from .async_server import AsyncServer
from .handler_registry import IdentityHandlerRegistry
from .registrar import Registrar, local_registrar

_DEFAULT_ACCESS = ("peers",)


class Server(AsyncServer, IdentityHandlerRegistry):
    """Program that serves protocols as one identity. Use it inside one event loop.

    ::

        server = listen("alice")

        @server.handle_requests("Echo")
        async def echo(request: EchoRequest, peer: Peer) -> EchoReply:
            return EchoReply(request.message)

        server.run()

    Several programs may serve the same protocol: each request goes to the least busy one.
    """

    def __init__(
        self,
        identity: str,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        """
        Args:
            identity: the name of an identity of this daemon. No request arrives while it is offline.
            home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.
            program: the name of this program in ``status``, at most 64 characters; by default that of its file.
            transport: ``"native"`` or ``"pyzmq"``; by default ``$FASTN_TRANSPORT``, else ``"native"``.

        Raises:
            InvalidName: no identity can have this name.
        """
        self.identity = check_name(identity, "an identity")
        self._client = Client(home, program=program, transport=transport)
        AsyncServer.__init__(self)
        IdentityHandlerRegistry.__init__(self)

    async def serve(self) -> None:
        """Serve until cancelled or until ``close`` is called; then accept no more requests, and finish those in flight.

        The daemon may restart meanwhile: the program registers again.

        Raises:
            IdentityNotFound: the daemon has no identity of this name.
            BindingExists: the owner has given the protocol to the daemon or to another program.
            DaemonNotRunning: no daemon is running.
            P2PError: another reason why the program cannot serve.
            ValueError: there is no handler.
        """
        if not self._handlers:
            raise ValueError("there is nothing to serve: handle_requests or handle_streams first")
        registrar = self._registrar = local_registrar(self._client, self.ready)
        try:
            await registrar.run(self._register_all(registrar))
        finally:
            self._registrar = None
            self._client.close()

    async def _register_all(self, registrar: Registrar) -> None:
        for (protocol, instance), handlers in self._handlers.items():
            access = handlers.access or _DEFAULT_ACCESS
            await registrar.add(self.identity, protocol, instance or "", handlers, access)
        registrar.initial_set_complete()


def listen(identity: str, home: Home | str | os.PathLike[str] | None = None) -> Server:
    """Return a ``Server`` that serves as an identity of this machine's daemon.

    Args:
        identity: the name of the identity.
        home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.

    Raises:
        InvalidName: no identity can have this name.
    """
    return Server(identity, home)
