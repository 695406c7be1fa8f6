"""``Server`` and ``BindingServer`` without ``await``: the blocking twins of ``listen`` and ``serve_all``.

They serve on the event loop of all blocking twins; handlers run in threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, overload

from ..event_loop_thread import submit
from ..home import Home
from ..ipc.transport.base import TransportName
from ..limits import DEFAULT_INSTANCE
from ..protocol import Protocol
from ..serving import binding_server as _all
from ..serving import server as _one
from ..serving.server import DEFAULT_QUEUE
from ..serving.termination import signals_handled

__all__ = ["BindingServer", "Server", "listen", "serve_all"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
Code = TypeVar("Code", bound=type[Protocol])


class _Ready(asyncio.Event):
    """Set and cleared for other threads too."""

    def __init__(self, elsewhere: threading.Event) -> None:
        super().__init__()
        self._elsewhere = elsewhere

    def set(self) -> None:
        super().set()
        self._elsewhere.set()

    def clear(self) -> None:
        super().clear()
        self._elsewhere.clear()


class _BlockingServer:
    """What both have: serving, in the thread that says so, until another one says that it is enough."""

    def __init__(self, server: _one.Server | _all.BindingServer) -> None:
        self._serving = server
        self._enough = False  # no Event: a signal's handler may come while this thread holds its lock
        self.ready = threading.Event()
        """As that of the other one."""
        server.ready = _Ready(self.ready)

    def serve(self) -> None:
        """Serve until ``close`` is called, by another thread or by the handler of a signal, or until Ctrl-C; then take
        no more, and let what is in flight end. A second Ctrl-C does not wait for that.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            DaemonNotRunning, P2PError: why it cannot be served.
        """
        running = submit(self._serve())
        try:
            self._await_end(running)
        finally:
            self._enough = False

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM or ``close``; return once what is in flight has ended.

        A second Ctrl-C or SIGTERM does not wait for that. In a thread other than the main one there are no signals.

        Raises:
            P2PError: as ``serve``.
        """
        with signals_handled(self._on_signal):
            running = submit(self._serve())
            try:
                running.result()
            except KeyboardInterrupt:
                running.cancel()
            finally:
                self._enough = False

    def _on_signal(self) -> None:
        if self._enough:
            raise KeyboardInterrupt
        self.close()

    def close(self) -> None:
        """Have ``serve`` return, once what is in flight has ended; at once if it is called only then."""
        self._enough = True
        self._serving.close()

    def _await_end(self, running: Future[None]) -> None:
        try:
            running.result()
        except KeyboardInterrupt:
            self.close()
            try:
                running.result()
            finally:
                running.cancel()
            raise

    async def _serve(self) -> None:
        serving = asyncio.get_running_loop().create_task(self._serving.serve())
        try:
            await asyncio.sleep(0)  # it has begun
            if self._enough:
                self._serving.close()
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            serving.cancel()
            raise


class Server(_BlockingServer):
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
        self._server = _one.Server(identity, home, program=program, transport=transport)
        super().__init__(self._server)

    @property
    def identity(self) -> str:
        return self._server.identity

    @overload
    def handle_requests(
        self,
        protocol: str,
        handler: Handler,
        *,
        instance: str = ...,
        command: str = ...,
        access: str | Sequence[str] | None = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
    ) -> Handler: ...
    @overload
    def handle_requests(
        self,
        protocol: str,
        *,
        instance: str = ...,
        command: str = ...,
        access: str | Sequence[str] | None = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
    ) -> Callable[[Handler], Handler]: ...
    def handle_requests(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        instance: str = DEFAULT_INSTANCE,
        command: str = "",
        access: str | Sequence[str] | None = None,
        concurrency: int | None = None,
        queue: int | None = None,
    ) -> Any:
        """As ``Server.handle_requests``."""

        def register(function: Handler) -> Handler:
            return self._server.handle_requests(
                protocol,
                function,
                instance=instance,
                command=command,
                access=access,
                concurrency=concurrency,
                queue=queue,
            )

        return register if handler is None else register(handler)

    @overload
    def handle_streams(
        self, protocol: str, handler: Handler, *, instance: str = ..., access: str | Sequence[str] | None = ...
    ) -> Handler: ...
    @overload
    def handle_streams(
        self, protocol: str, *, instance: str = ..., access: str | Sequence[str] | None = ...
    ) -> Callable[[Handler], Handler]: ...
    def handle_streams(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        instance: str = DEFAULT_INSTANCE,
        access: str | Sequence[str] | None = None,
    ) -> Any:
        """As ``Server.handle_streams``."""

        def register(function: Handler) -> Handler:
            return self._server.handle_streams(protocol, function, instance=instance, access=access)

        return register if handler is None else register(handler)


class BindingServer(_BlockingServer):
    """Blocking twin of ``fastn_p2p_client.BindingServer``."""

    def __init__(
        self,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        self._server = _all.BindingServer(home, program=program, transport=transport)
        super().__init__(self._server)

    def protocol(
        self, code: Code, name: str | None = None, *, concurrency: int | None = None, queue: int = DEFAULT_QUEUE
    ) -> Code:
        """As ``BindingServer.protocol``; hooks are ``async`` here too."""
        return self._server.protocol(code, name, concurrency=concurrency, queue=queue)

    @overload
    def handle_requests(
        self,
        protocol: str,
        handler: Handler,
        *,
        command: str = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
    ) -> Handler: ...
    @overload
    def handle_requests(
        self, protocol: str, *, command: str = ..., concurrency: int | None = ..., queue: int | None = ...
    ) -> Callable[[Handler], Handler]: ...
    def handle_requests(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        command: str = "",
        concurrency: int | None = None,
        queue: int | None = None,
    ) -> Any:
        """As ``BindingServer.handle_requests``."""

        def register(function: Handler) -> Handler:
            return self._server.handle_requests(
                protocol, function, command=command, concurrency=concurrency, queue=queue
            )

        return register if handler is None else register(handler)

    @overload
    def handle_streams(self, protocol: str, handler: Handler) -> Handler: ...
    @overload
    def handle_streams(self, protocol: str) -> Callable[[Handler], Handler]: ...
    def handle_streams(self, protocol: str, handler: Callable[..., Any] | None = None) -> Any:
        """As ``BindingServer.handle_streams``."""

        def register(function: Handler) -> Handler:
            return self._server.handle_streams(protocol, function)

        return register if handler is None else register(handler)


def listen(identity: str, home: Home | str | os.PathLike[str] | None = None) -> Server:
    """As ``fastn_p2p_client.listen``, blocking."""
    return Server(identity, home)


def serve_all(home: Home | str | os.PathLike[str] | None = None) -> BindingServer:
    """As ``fastn_p2p_client.serve_all``, blocking."""
    return BindingServer(home)
