"""``fastn-p2p forward``: each connection to a listener here is a session with a Tunnel there."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime.process_setup import (
    raise_file_limit,
    tune_malloc,
)
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
from ...console.exit_codes import (
    CommandLineError,
    ExitCode,
)
from ...console.output import (
    write_message,
    write_result,
)
from .error_reporter import ErrorReporter
from .service_address import ServiceAddress
from .sockets import AddressInUse, Listener, open_listener
from .splice import (
    reset_socket,
    splice,
)

PROTOCOL: Final = "Tunnel"
_PASSING: Final = (PeerUnreachable, PeerOffline, DeadlineExceeded, Overloaded, ConnectionLost)
"""What may be over when the first connection comes, so that it does not keep us from listening."""
_FULL_PAUSE: Final = 0.5
"""Seconds until connections are taken again after there were too many open files, unless one of ours ends before."""


class Forwarder:
    """Takes connections from a listener, which it closes in the end, and joins each to a session of its own.

    Args:
        connect: opens a session.
        trouble: is told what does not work.
    """

    def __init__(self, listener: Listener, connect: Callable[[], Awaitable[Session]], trouble: ErrorReporter) -> None:
        self._listener = listener
        self._connect = connect
        self._trouble = trouble
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled. Connections that stand are reset then."""
        try:
            while True:
                try:
                    connection = await self._listener.accept()
                except OSError as error:
                    self._trouble.report_failure(f"no more connections can be taken: {error.strerror}")
                    await self._wait_for_free_descriptor()
                    continue
                task = asyncio.ensure_future(self._serve(connection))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
        finally:
            self._listener.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _wait_for_free_descriptor(self) -> None:
        """Until a connection of ours has ended, or some time has passed."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=_FULL_PAUSE, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_FULL_PAUSE)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            session = await self._connect()
        except (P2PError, ApplicationError) as error:
            reset_socket(connection)
            self._trouble.report_failure(f"a connection was closed: {_words(error)}")
            return
        except BaseException:
            reset_socket(connection)
            raise
        self._trouble.report_success()
        ended = await splice(session, connection)
        if isinstance(ended, ConnectionLost):
            self._trouble.report_failure(f"a connection was cut off: {ended.what} went away")


def _words(error: Exception) -> str:
    return error.message if isinstance(error, ApplicationError) and error.message else str(error)


def forward(home: Path | None, identity: str | None, peer: str, instance: str, address: ServiceAddress) -> ExitCode:
    """Listens at ``address`` until SIGTERM.

    Raises:
        CommandLineError: it cannot be listened there.
        P2PError: the tunnel will not work, however long one waits.
    """
    import uvloop

    raise_file_limit()  # each connection is an open file
    tune_malloc()
    code: ExitCode = uvloop.run(_forward(home, identity, peer, instance, address))
    return code


async def _forward(
    home: Path | None, identity: str | None, peer: str, instance: str, address: ServiceAddress
) -> ExitCode:
    loop = asyncio.get_running_loop()
    trouble = ErrorReporter(lambda words: write_message(f"fastn-p2p: {words}"), now=loop.time, later=loop.call_later)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        listener = await open_listener(address)
    except AddressInUse as error:
        write_message(f"fastn-p2p: --listen: {address}: {error.strerror}")
        return ExitCode.EXISTS
    except OSError as error:
        raise CommandLineError(f"--listen: {address}: {error.strerror}") from None
    async with Client(home, program="fastn-p2p forward") as client:

        async def connect() -> Session:
            return await client.connect(identity, peer, PROTOCOL, instance)

        async def serve() -> None:
            try:
                await connecting(client, identity, peer, client.call(identity, peer, PROTOCOL, instance, {}))
            except _PASSING as error:
                trouble.report_failure(f"{error} Connections get through once that is over")
            write_message(f"connections to this address reach {instance!r} of {peer}; Ctrl-C ends it:")
            write_result(str(listener.address))
            if not _is_private(listener.address):
                write_message("whoever reaches this machine can use it, not only its own programs")
            await Forwarder(listener, connect, trouble).run()

        tasks = asyncio.ensure_future(serve()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            listener.close()
    return ExitCode.OK


def _is_private(address: ServiceAddress) -> bool:
    """Whether only programs of this machine get there."""
    return bool(address.path) or ipaddress.ip_address(address.host.partition("%")[0]).is_loopback
