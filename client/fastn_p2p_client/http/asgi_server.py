"""``serve_asgi``: an ASGI application that peers reach, without a port of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, TypeAlias

from ..home import Home
from ..ipc.transport.base import TransportName
from ..limits import MAX_SESSIONS_PER_BINDING, RESET_FAILED
from ..peer import Peer
from ..serving.server import Server
from ..serving.termination import run_until_signal
from ..session.session import Session
from .asgi_connection import AsgiConnection
from .channel_server import ChannelInitial, ChannelServer
from .error_response import error_response
from .multiplexer import Multiplexer, SessionChannel
from .stream_channel import StreamChannel

__all__ = ["AsgiServer", "serve_asgi"]

Scope: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[MutableMapping[str, Any]]], Callable[[MutableMapping[str, Any]], Awaitable[None]]],
    Awaitable[None],
]
PROTOCOL: Final = "Web"
DEFAULT_WEB_INSTANCE: Final = "web"
_log = logging.getLogger("fastn_p2p.http")


class AsgiServer:
    """Serves an ASGI application to peers, who open it as they open what ``fastn-p2p expose`` exposes.

    ::

        server = AsgiServer(app, "alice")
        await server.serve()

    The scope of a request has the verified caller as ``scope["fastn_p2p.peer"]``, a ``Peer``, and the request's id as
    ``scope["fastn_p2p.request_id"]``; ``scope["client"]`` is his ID52 with port 0. The headers are those of the
    protocol Web: ``Fastn-Peer``, ``Fastn-Peer-Name``, ``Fastn-Request-Id``.
    """

    def __init__(
        self,
        app: AsgiApp,
        identity: str,
        instance: str = DEFAULT_WEB_INSTANCE,
        *,
        access: str | Sequence[str] | None = None,
        home: Home | str | os.PathLike[str] | None = None,
        transport: TransportName | None = None,
    ) -> None:
        """
        Args:
            app: the application, for instance of FastAPI or Starlette.
            identity: name of the identity that serves it.
            instance: name under which peers open it.
            access: peers that may use it: ``"peers"`` (all in the address book), ``"everyone"``, ``"group:NAME"``, an
                ID52, a petname, or several of these. By default ``"peers"``.
            home, transport: as for ``Server``.

        Raises:
            InvalidName: the identity or the instance has no valid name.
        """
        self._app = app
        self._state: dict[str, Any] = {}
        self._channels = ChannelServer(self._accept, self._move)
        self._tasks: dict[SessionChannel, asyncio.Future[None]] = {}
        self._server = Server(identity, home, transport=transport)
        self._server.handle_streams(PROTOCOL, self._handle, instance=instance, access=access)
        self._server.handle_requests(PROTOCOL, _answer, instance=instance, access=access)

    async def serve(self) -> None:
        """Serve until cancelled or until ``close`` is called; then finish the requests in flight.

        Raises:
            RuntimeError: the application has failed to start.
            P2PError: the program cannot serve; see ``Server.serve``.
        """
        async with AsyncExitStack() as stack:
            lifespan = _Lifespan(self._app, self._state)
            await lifespan.start()
            stack.push_async_callback(lifespan.stop)
            await self._server.serve()

    async def wait_ready(self) -> None:
        """Wait until peers can reach the application."""
        await self._server.ready.wait()

    def run(self) -> None:
        """Serve in an event loop of its own until Ctrl-C, SIGTERM or ``close``.

        Raises:
            UsedElsewhere: an event loop runs in this thread already.
            RuntimeError, P2PError: as ``serve``.
        """
        run_until_signal(self.serve, self.close)

    def close(self) -> None:
        """Have ``serve`` return once the requests in flight have ended."""
        self._server.close()

    async def _handle(self, session: Session, initial: ChannelInitial | None) -> None:
        if initial is not None:
            await self._channels.serve(session, initial)
            return
        session.accept()
        await AsgiConnection(self._app, session, self._state).run()

    def _accept(self, multiplexer: Multiplexer, number: int, is_full: bool) -> SessionChannel:
        channel = StreamChannel(multiplexer, number)
        if is_full or len(self._tasks) >= MAX_SESSIONS_PER_BINDING:
            if not multiplexer.is_congested:
                channel.send(error_response(503, "Too many connections are open."))
                channel.end()
            channel.reset()
            return channel
        task = self._tasks[channel] = asyncio.ensure_future(self._serve(channel))
        task.add_done_callback(lambda _: self._tasks.pop(channel))
        return channel

    async def _serve(self, channel: StreamChannel) -> None:
        try:
            await AsgiConnection(self._app, channel, self._state).run()
        except BaseException as error:
            channel.abort(RESET_FAILED)
            if not isinstance(error, Exception):
                raise
            _log.exception("a connection has failed")

    async def _move(self, channel: SessionChannel, session: Session) -> None:
        task = self._tasks.get(channel)
        if task is not None and isinstance(channel, StreamChannel):
            channel.move_to(session)
            await task


async def _answer(_request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
    """Answer whether it is there, as the protocol Web does."""
    return {}


def serve_asgi(
    app: AsgiApp,
    identity: str,
    instance: str = DEFAULT_WEB_INSTANCE,
    *,
    access: str | Sequence[str] | None = None,
    home: Home | str | os.PathLike[str] | None = None,
) -> None:
    """Serve an ASGI application to peers until Ctrl-C or SIGTERM. Arguments and errors are those of ``AsgiServer``.

    ::

        app = FastAPI()
        serve_asgi(app, "alice", "web")
    """
    AsgiServer(app, identity, instance, access=access, home=home).run()


class _Lifespan:
    """Start and end of an application."""

    def __init__(self, app: AsgiApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._events: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._task: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Wait until the application has started. One that does not know of its life is ready at once.

        Raises:
            RuntimeError: it has failed to start.
        """
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.ensure_future(self._run())
        try:
            await asyncio.shield(self._started)
        except BaseException:
            self._task.cancel()
            raise

    async def stop(self) -> None:
        """Wait until the application has ended."""
        if self._task is not None and not self._task.done():
            self._events.put_nowait({"type": "lifespan.shutdown"})
            await self._stopped.wait()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._events.get, self._send)
        except Exception as error:
            if self._started.done():
                _log.exception("the application has failed")
            else:
                _log.debug("the application does not know of its life: %r", error)
        finally:
            self._stopped.set()
            if not self._started.done():
                self._started.set_result(None)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            self._started.set_exception(RuntimeError(f"the application has not started: {message.get('message', '')}"))
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            if message.get("message"):
                _log.error("the application has not ended in order: %s", message["message"])
            self._stopped.set()
