"""Tasks of one connection: run its call channel, accept its streams, reject its datagrams, and wait for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import ConnectionLost

from ..transport.iroh_errors import ConnectionEnd, connection_end
from .call_channel import CallChannel

if TYPE_CHECKING:
    from iroh.iroh_ffi import BiStream, Connection

_CHANNEL_PRIORITY: Final = 1
"""Priority of the call channel among QUIC's streams, whose default is 0: its frames leave before queued session
data."""


class TaskConnection(Protocol):
    """Members of the connection that its tasks use."""

    outgoing: bool
    ready: asyncio.Future[None]

    def fail(self, error: IrohError) -> None: ...
    def abort(self, reason: str) -> None: ...
    def on_quic_closed(self, end: ConnectionEnd) -> None: ...


class ConnectionTasks:
    """Tasks of one connection. They end with it."""

    def __init__(self, connection: TaskConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Any, on_done: Callable[[object], object] | None = None) -> None:
        """Run a coroutine until the connection ends. ``on_done`` is called even if it never ran."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if on_done is not None:
            task.add_done_callback(on_done)

    def start(
        self,
        raw: Connection,
        channel: CallChannel,
        accept_bulk: Callable[[], Awaitable[None]],
        accept_sessions: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin to read: the call channel, bulk streams, and the streams of sessions."""
        self.spawn(self._run_channel(raw, channel, accept_sessions))
        self.spawn(self._accept(accept_bulk))
        self.spawn(self._reject_datagrams(raw))
        self.spawn(self._wait_closed(raw))

    def cancel(self) -> None:
        """Cancel all tasks but the current one."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def _run_channel(
        self, raw: Connection, channel: CallChannel, accept_sessions: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            stream: BiStream = await (raw.open_bi() if self._connection.outgoing else raw.accept_bi())
        except IrohError as error:
            self._connection.fail(error)
            return
        del raw  # the connection of iroh is freed with its last reference
        await stream.send().set_priority(_CHANNEL_PRIORITY)
        channel.start(stream.send(), stream.recv())
        del stream
        await self._accept(accept_sessions)

    async def _accept(self, streams: Callable[[], Awaitable[None]]) -> None:
        """Accept streams from the hello on until the connection ends."""
        try:
            await asyncio.shield(self._connection.ready)
            await streams()
        except ConnectionLost:
            return  # the connection has ended before the hello
        except IrohError as error:
            self._connection.fail(error)

    async def _reject_datagrams(self, raw: Connection) -> None:
        """Abort the connection at the first datagram, because QUIC would keep datagrams until they are read."""
        try:
            await raw.read_datagram()
        except IrohError:
            return  # the connection has ended
        self._connection.abort("the peer has sent a datagram, which this protocol does not use")

    async def _wait_closed(self, raw: Connection) -> None:
        try:
            end = connection_end(await raw.closed())
        except IrohError as error:
            end = connection_end(error)
        self._connection.on_quic_closed(end)
