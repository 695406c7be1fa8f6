"""``fastn-p2p open``: a peer's web service on a port of this machine, for browsers and other clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from fastn_p2p_actors.runtime.process_setup import raise_file_limit, tune_malloc
from fastn_p2p_client.client import Client
from fastn_p2p_client.control_client import list_all_peers
from fastn_p2p_client.errors import (
    ApplicationError,
    ConnectionLost,
    DeadlineExceeded,
    Denied,
    InstanceNotFound,
    Overloaded,
    P2PError,
    PeerNameUnknown,
    PeerOffline,
    PeerUnreachable,
    ProtocolNotFound,
)
from fastn_p2p_client.http.request_rewriter import Pieces, RequestRewriter
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer_text import name_or_id52
from fastn_p2p_client.session.session import Session

from ...console.connecting_notice import connecting
from ...console.exit_codes import EXITS, CommandFailed, CommandLineError, ExitCode
from ...console.output import put_json, write_message, write_problem, write_result
from .._shared.accept_loop import AcceptLoop, run_until_sigterm
from .._shared.error_reporter import ErrorReporter
from .._shared.service_address import ServiceAddress
from .._shared.sockets import AddressInUse, Listener, open_listener
from .._shared.splice import reset_socket
from .client_channel import ClientChannel
from .http_splice import ClientSplice, answer
from .origin_guard import OriginGuard
from .shared_session import SharedSession
from .socket_owner import user_of_client

PROTOCOL: Final = "Web"
FIRST_PORT: Final = 20000
PORTS: Final = 10000
"""Ports that are chosen from: below those that Linux gives to outgoing connections."""
_LOOPBACK: Final = "127.0.0.1"
_CONNECT_TIMEOUT: Final = 20.0
"""Seconds that the peer has to accept a connection."""
_RECEIVE: Final = 256 * 1024
_TEMPORARY: Final = (PeerUnreachable, PeerOffline, DeadlineExceeded, Overloaded, ConnectionLost)
"""Errors that may be over at the first request, so that the command listens anyway."""
_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (Denied, 403),
    (ProtocolNotFound, 404),
    (InstanceNotFound, 404),
    (Overloaded, 503),
    (DeadlineExceeded, 504),
)
"""Status of an answer that tells why there is no session; 502 for all other errors."""


def port_of(identity: PublicKey, peer: PublicKey, instance: str) -> int:
    """Return the port of a service. It depends on nothing else, so that it stays when homes and names change."""
    text = f"{identity.id52}/{peer.id52}/{instance}".encode()
    return FIRST_PORT + int.from_bytes(hashlib.sha256(text).digest()[:8]) % PORTS


def local_name(peer: str, instance: str) -> str:
    """Return the host name of a service on this machine. Browsers resolve it without asking anybody (RFC 6761)."""
    return f"{instance}.{peer}.localhost".replace("_", "-")


class LoopbackServer(AcceptLoop):
    """Serves the connections of a listener with sessions of a peer, and answers errors as web pages.

    Args:
        connect: opens a session with initial data.
        guard: checks each request.
        text_of: returns what an error says to the user.
        users: uids that may connect; None for every user of this machine.
    """

    def __init__(
        self,
        listener: Listener,
        connect: Callable[[Any], Awaitable[Session]],
        guard: OriginGuard,
        errors: ErrorReporter,
        users: frozenset[int] | None,
        text_of: Callable[[Exception], str] = str,
    ) -> None:
        super().__init__(listener, errors)
        self._connect = connect
        self._shared = SharedSession(connect)
        self._guard = guard
        self._users = users
        self._text_of = text_of

    async def run(self) -> None:
        """Run until cancelled. Open connections are then reset."""
        try:
            await super().run()
        finally:
            await self._shared.close()

    async def _serve(self, connection: socket.socket) -> None:
        try:
            if self._users is not None and user_of_client(connection) not in self._users:
                await answer(connection, 403, "This address belongs to another user of this machine.")
                return
            await self._serve_requests(connection)
        except OSError:
            reset_socket(connection)
        except BaseException:
            reset_socket(connection)
            raise

    async def _serve_requests(self, connection: socket.socket) -> None:
        """Serve a connection. A session is opened when the first request has come: browsers connect in advance."""
        loop = asyncio.get_running_loop()
        rewriter = RequestRewriter(self._guard.check)
        pieces: Pieces = []
        while not pieces:
            data = await loop.sock_recv(connection, _RECEIVE)
            if not data:
                connection.close()
                return
            pieces = rewriter.rewrite(data)
            if not pieces and rewriter.refused is not None:
                await answer(connection, rewriter.refused.status, rewriter.refused.text)
                return
        while pieces:
            try:
                multiplexer = None if rewriter.upgrade else await self._shared.get()
                session = await self._connect(None) if multiplexer is None else multiplexer.session
            except (P2PError, ApplicationError) as error:
                text = self._text_of(error)
                self._errors.report_failure(f"a request was not passed on: {text}")
                status = next((status for kind, status in _STATUS if isinstance(error, kind)), 502)
                await answer(connection, status, text, has_body=bytes(pieces[0][:5]) != b"HEAD ")
                return
            self._errors.report_success()
            if multiplexer is not None:
                channel = ClientChannel(multiplexer, rewriter, self._connect)
                pieces = await channel.run(connection, pieces)
                ended = channel.error
            else:
                splice = ClientSplice(session, connection, rewriter, pieces)
                ended = await splice.run()
                pieces = [] if splice.upgrade_head is None else [splice.upgrade_head]
            if isinstance(ended, ConnectionLost):
                self._errors.report_failure(f"a connection was reset: {ended.what} went away")


def open_service(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    *,
    port: int | None,
    browser: bool,
    every_user: bool,
    json: bool = False,
) -> ExitCode:
    """Serve a peer's web service on a local port until SIGTERM. Return the exit code.

    Args:
        port: the port; 0 for any free one, None for the one that belongs to the service.
        browser: open a browser.
        every_user: serve the other users of this machine, too.
        json: print the addresses as JSON.

    Raises:
        CommandFailed: another program has the port.
        CommandLineError: the port cannot be used.
        P2PError: it cannot work, now or later.
    """
    import uvloop

    raise_file_limit()  # each connection is an open file
    tune_malloc()
    code: ExitCode = uvloop.run(_open(home, identity, peer, instance, port, browser, every_user, json))
    return code


async def _open(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    port: int | None,
    browser: bool,
    every_user: bool,
    json: bool,
) -> ExitCode:
    loop = asyncio.get_running_loop()
    errors = ErrorReporter(write_problem, now=loop.time, call_later=loop.call_later)
    async with Client(home, program="fastn-p2p open") as client:
        name, key = await client.resolve_identity(identity)
        peer_name, peer_key = await _find(client, peer)
        try:
            listener = await open_listener(
                ServiceAddress(_LOOPBACK, port_of(key, peer_key, instance) if port is None else port)
            )
        except AddressInUse:
            taken = port_of(key, peer_key, instance) if port is None else port
            raise CommandFailed(
                f"port {taken} of this machine is in use, maybe by another `open {peer} {instance}`. End that "
                "program, or choose a port: --port PORT",
                ExitCode.EXISTS,
                "address-in-use",
            ) from None
        except OSError as error:
            raise CommandLineError(f"--port: {port}: {error.strerror}") from None
        host = local_name(peer_name, instance)
        url = f"http://{listener.address}/"
        hosts = [f"{each}:{listener.address.port}" for each in (_LOOPBACK, "localhost", host)]
        users = None if every_user else frozenset({os.getuid(), 0})

        def text_of(error: Exception) -> str:
            """Return the text of an error with the names that the user knows."""
            return str(error).replace(peer_key.id52, peer_name).replace("YOUR-ID52", key.id52)

        async def serve() -> None:
            try:
                await connecting(client, name, peer, client.call(name, peer, PROTOCOL, instance, {}))
            except _TEMPORARY as error:
                errors.report_failure(f"the service will be there once this is over: {text_of(error)}")
            except P2PError as error:
                exit_code = EXITS.get(error.code, ExitCode.INTERNAL)
                raise CommandFailed(text_of(error), exit_code, error.code, **error.fields()) from error
            named = f"http://{host}:{listener.address.port}/"
            write_message(
                f"{instance} of {peer} is at the address below, in a browser also at {named}. Ctrl-C ends it."
            )
            if json:
                put_json({"url": url, "browser_url": named})
            else:
                write_result(url)
            if every_user:
                write_message("Every user of this machine can use it in your identity's name.")
            if browser:
                await asyncio.to_thread(_show, named)

            async def connect(initial: Any) -> Session:
                return await client.connect(name, peer, PROTOCOL, instance, initial, timeout=_CONNECT_TIMEOUT)

            await LoopbackServer(listener, connect, OriginGuard(hosts, url), errors, users, text_of).run()

        try:
            await run_until_sigterm(serve())
        finally:
            listener.close()
    return ExitCode.OK


async def _find(client: Client, peer: str) -> tuple[str, PublicKey]:
    """Return the name, or the ID52 without one, and the key of a peer.

    Raises:
        PeerNameUnknown: neither the address book nor this daemon has the name.
    """
    text = name_or_id52(peer)
    for each in await list_all_peers(client):
        if text in (each.name, each.id52):
            return each.name, PublicKey(each.id52)
    with contextlib.suppress(P2PError):
        name, key = await client.resolve_identity(text)
        return name, key
    try:
        return text, PublicKey(text)
    except P2PError:
        raise PeerNameUnknown(name=text) from None


def _show(url: str) -> None:
    import webbrowser

    if not webbrowser.open(url):
        write_message("No browser was found. Open the address in one.")
