"""``fastn-p2p forward``: each connection to a local listener becomes a session with a peer's Tunnel."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime.process_setup import raise_file_limit, tune_malloc
from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import (
    ApplicationError,
    ConnectionLost,
    DeadlineExceeded,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnreachable,
)
from fastn_p2p_client.session.session import Session

from ...console.connecting_notice import connecting
from ...console.exit_codes import CommandFailed, CommandLineError, ExitCode
from ...console.output import put_json, write_message, write_problem, write_result
from .._shared.accept_loop import AcceptLoop, run_until_sigterm
from .._shared.error_reporter import ErrorReporter
from .._shared.service_address import ServiceAddress
from .._shared.sockets import AddressInUse, Listener, open_listener
from .._shared.splice import reset_socket, splice

PROTOCOL: Final = "Tunnel"
_TEMPORARY: Final = (PeerUnreachable, PeerOffline, DeadlineExceeded, Overloaded, ConnectionLost)
"""Errors that may be over at the first connection, so that the command listens anyway."""


class Forwarder(AcceptLoop):
    """Splices each connection of a listener with a new session.

    Args:
        connect: opens a session.
        errors: receives failures and successes.
    """

    def __init__(self, listener: Listener, connect: Callable[[], Awaitable[Session]], errors: ErrorReporter) -> None:
        super().__init__(listener, errors)
        self._connect = connect

    async def _serve(self, connection: socket.socket) -> None:
        try:
            session = await self._connect()
        except (P2PError, ApplicationError) as error:
            reset_socket(connection)
            self._errors.report_failure(f"a connection was closed: {_reason(error)}")
            return
        except BaseException:
            reset_socket(connection)
            raise
        self._errors.report_success()
        ended = await splice(session, connection)
        if isinstance(ended, ConnectionLost):
            self._errors.report_failure(f"a connection was reset: {ended.what} went away")


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, ApplicationError) and error.message else str(error)


def forward(
    home: Path | None, identity: str | None, peer: str, instance: str, address: ServiceAddress, json: bool = False
) -> ExitCode:
    """Forward connections to ``address`` until SIGTERM. Return the exit code.

    Args:
        json: print the address as JSON.

    Raises:
        CommandFailed: another program listens there.
        CommandLineError: the address cannot be used.
        P2PError: the tunnel cannot work, now or later.
    """
    import uvloop

    raise_file_limit()  # each connection is an open file
    tune_malloc()
    code: ExitCode = uvloop.run(_forward(home, identity, peer, instance, address, json=json))
    return code


async def _forward(
    home: Path | None, identity: str | None, peer: str, instance: str, address: ServiceAddress, *, json: bool
) -> ExitCode:
    loop = asyncio.get_running_loop()
    errors = ErrorReporter(write_problem, now=loop.time, call_later=loop.call_later)
    try:
        listener = await open_listener(address)
    except AddressInUse as error:
        raise CommandFailed(f"--listen: {address}: {error.strerror}", ExitCode.EXISTS, "address-in-use") from None
    except OSError as error:
        raise CommandLineError(f"--listen: {address}: {error.strerror}") from None
    async with Client(home, program="fastn-p2p forward") as client:

        async def connect() -> Session:
            return await client.connect(identity, peer, PROTOCOL, instance)

        async def serve() -> None:
            try:
                await connecting(client, identity, peer, client.call(identity, peer, PROTOCOL, instance, {}))
            except _TEMPORARY as error:
                errors.report_failure(f"{error}. Connections will work when this is over")
            write_message(f"Forwarding connections to instance {instance!r} of {peer}. Ctrl-C ends it. Address:")
            if json:
                put_json({"address": str(listener.address)})
            else:
                write_result(str(listener.address))
            if not _is_private(listener.address):
                write_message("Every machine that can reach this address can use it.")
            await Forwarder(listener, connect, errors).run()

        try:
            await run_until_sigterm(serve())
        finally:
            listener.close()
    return ExitCode.OK


def _is_private(address: ServiceAddress) -> bool:
    """Return whether only programs of this machine can connect."""
    return bool(address.path) or ipaddress.ip_address(address.host.partition("%")[0]).is_loopback
