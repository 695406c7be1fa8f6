"""The connections of peers that share sessions, on the machine of the service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from fastn_p2p_client.errors import Overloaded
from fastn_p2p_client.http.channel_server import MAX_CHANNELS_PER_PEER, ChannelServer
from fastn_p2p_client.http.error_response import error_response
from fastn_p2p_client.http.multiplexer import Multiplexer, SessionChannel
from fastn_p2p_client.http.request_reader import RequestRefused
from fastn_p2p_client.http.request_rewriter import RequestRewriter
from fastn_p2p_client.peer import Peer
from fastn_p2p_client.session.session import Session

from .service_channel import ServiceChannel


class SharedConnections:
    """Connects each channel with the service.

    Args:
        rewriter_for: returns the rewriter of the requests of a peer's connection, which has a request id.
        connect: connects with the service, or raises ``RequestRefused``.
        reserve: counts one connection more, or raises ``Overloaded``.
        release: counts one less.

    Attributes:
        server: serves the sessions.
    """

    def __init__(
        self,
        rewriter_for: Callable[[Peer, str], RequestRewriter],
        connect: Callable[[], Awaitable[socket.socket]],
        reserve: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._rewriter_for = rewriter_for
        self._connect = connect
        self._reserve = reserve
        self._release = release
        self._tasks: dict[SessionChannel, asyncio.Task[None]] = {}
        self.server = ChannelServer(self._accept, self._move)

    def _accept(self, multiplexer: Multiplexer, number: int, is_full: bool) -> SessionChannel:
        session = multiplexer.session
        rewriter = self._rewriter_for(session.peer, f"{session.request_id}/{number:x}")
        channel = ServiceChannel(multiplexer, number, rewriter)
        try:
            if is_full:
                raise Overloaded(what="connections of one peer to this service", limit=MAX_CHANNELS_PER_PEER)
            self._reserve()
        except Overloaded as error:
            channel.answer_and_reset(error_response(503, str(error)))
            return channel
        task = self._tasks[channel] = asyncio.ensure_future(self._serve(channel))
        task.add_done_callback(lambda _: self._tasks.pop(channel))
        return channel

    async def _serve(self, channel: ServiceChannel) -> None:
        try:
            try:
                connection = await self._connect()
            except RequestRefused as refused:
                await channel.answer(error_response(refused.status, refused.text))
            else:
                await channel.run(connection)
        finally:
            self._release()

    async def _move(self, channel: SessionChannel, session: Session) -> None:
        task = self._tasks.get(channel)
        if task is not None:
            cast(ServiceChannel, channel).move_to(session)
            await task
