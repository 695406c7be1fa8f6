"""Blocking twins of ``listen``, ``serve_all`` and their servers.

They serve on the event loop of all blocking twins. Handlers run in threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import TypeVar

from ..event_loop_thread import submit, wait_for
from ..home import Home
from ..ipc.transport.base import TransportName
from ..protocol import Protocol
from ..serving import binding_server as _all
from ..serving import server as _one
from ..serving.handler_registry import HandlerRegistry, IdentityHandlerRegistry
from ..serving.handlers import DEFAULT_QUEUE
from ..serving.termination import signals_handled

Code = TypeVar("Code", bound=type[Protocol])


class _ThreadsafeReady(asyncio.Event):
    """``ready`` of the wrapped server; sets and clears an event for other threads as well."""

    def __init__(self, threads_event: threading.Event) -> None:
        super().__init__()
        self._threads_event = threads_event

    def set(self) -> None:
        super().set()
        self._threads_event.set()

    def clear(self) -> None:
        super().clear()
        self._threads_event.clear()


class _BlockingServer:
    """Serve in the calling thread until another thread, a signal or Ctrl-C ends it."""

    def __init__(self, server: _one.Server | _all.BindingServer) -> None:
        self._serving = server
        self._is_closing = False  # no Event: a signal handler may run while this thread holds its lock
        self.ready = threading.Event()
        """Set while the network process knows every handler, as far as this program can tell."""
        server.ready = _ThreadsafeReady(self.ready)

    def serve(self) -> None:
        """Serve until Ctrl-C, or until another thread or a signal handler calls ``close``; then finish.

        No more requests are accepted then, and those in flight are finished. A second Ctrl-C ends them.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            DaemonNotRunning: no daemon is running.
            P2PError: another reason why the program cannot serve.
            ValueError: there is no handler.
        """
        running = submit(self._serve())
        try:
            self._wait_for_end(running)
        finally:
            self._is_closing = False

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM or ``close``, and finish requests in flight.

        A second Ctrl-C or SIGTERM ends the requests in flight. In a thread other than the main one, signals have no
        effect.

        Raises:
            P2PError: the program cannot serve; see ``serve``.
            ValueError: there is no handler.
        """
        with signals_handled(self._on_signal):
            running = submit(self._serve())
            try:
                wait_for(running)
            except KeyboardInterrupt:
                running.cancel()
            finally:
                self._is_closing = False

    def _on_signal(self) -> None:
        if self._is_closing:
            raise KeyboardInterrupt
        self.close()

    def close(self) -> None:
        """Have ``serve`` return once the requests in flight have ended. If called before ``serve``, it returns at once.

        Any thread may call this.
        """
        self._is_closing = True
        self._serving.close()

    def _wait_for_end(self, running: Future[None]) -> None:
        try:
            wait_for(running)
        except KeyboardInterrupt:
            self.close()
            try:
                wait_for(running)
            finally:
                running.cancel()
            raise

    async def _serve(self) -> None:
        serving = asyncio.get_running_loop().create_task(self._serving.serve())
        try:
            await asyncio.sleep(0)  # let it begin
            if self._is_closing:
                self._serving.close()
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            serving.cancel()
            raise


class Server(_BlockingServer, IdentityHandlerRegistry):
    """Blocking twin of ``fastn_p2p_client.Server``.

    ::

        server = listen("alice")

        @server.handle_requests("Echo")
        def echo(request: EchoRequest, peer: Peer) -> EchoReply:
            return EchoReply(request.message)

        server.run()
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
        server = _one.Server(identity, home, program=program, transport=transport)
        _BlockingServer.__init__(self, server)
        IdentityHandlerRegistry.__init__(self, server)
        self.identity = server.identity


class BindingServer(_BlockingServer, HandlerRegistry):
    """Blocking twin of ``fastn_p2p_client.BindingServer``."""

    def __init__(
        self,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        """
        Args:
            home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.
            program: the name of this program in ``status``, at most 64 characters; by default that of its file.
            transport: ``"native"`` or ``"pyzmq"``; by default ``$FASTN_TRANSPORT``, else ``"native"``.
        """
        self._server = _all.BindingServer(home, program=program, transport=transport)
        _BlockingServer.__init__(self, self._server)
        HandlerRegistry.__init__(self, self._server)

    def protocol(
        self,
        code: Code,
        name: str | None = None,
        *,
        concurrency: int | None = None,
        queue: int = DEFAULT_QUEUE,
        claims: str | None = None,
    ) -> Code:
        """As ``fastn_p2p_client.BindingServer.protocol``. Hooks are ``async`` here too."""
        return self._server.protocol(code, name, concurrency=concurrency, queue=queue, claims=claims)


def listen(identity: str, home: Home | str | os.PathLike[str] | None = None) -> Server:
    """As ``fastn_p2p_client.listen``, blocking."""
    return Server(identity, home)


def serve_all(home: Home | str | os.PathLike[str] | None = None) -> BindingServer:
    """As ``fastn_p2p_client.serve_all``, blocking."""
    return BindingServer(home)
