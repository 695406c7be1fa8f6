"""A channel on the machine of the client, and its connection there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from fastn_p2p_client.errors import ApplicationError, P2PError
from fastn_p2p_client.http.multiplexer import MoveChannel, Multiplexer, NoChannels
from fastn_p2p_client.http.request_reader import RequestRefused
from fastn_p2p_client.http.request_rewriter import Pieces, RequestRewriter
from fastn_p2p_client.session.session import Session

from .._shared.splice import RESET_BROKEN, reset_socket
from .http_splice import ClientSplice, answer, can_answer
from .socket_channel import Outcome, SocketChannel


class ClientChannel(SocketChannel):
    """End on the machine of the client: its connection brings requests.

    Args:
        connect: opens a session with initial data.
    """

    def __init__(
        self, multiplexer: Multiplexer, rewriter: RequestRewriter, connect: Callable[[Any], Awaitable[Session]]
    ) -> None:
        super().__init__(multiplexer, multiplexer.new_number(), rewriter)
        multiplexer.channels[self.number] = self
        self._connect = connect
        self._moving: asyncio.Future[None] | None = None
        self._answered = 0
        self._upgrade_head: bytes | memoryview = b""

    async def run(self, connection: socket.socket, pieces: Pieces) -> Pieces:
        """Pass bytes until the channel is over, also in a session of its own.

        Args:
            pieces: what is sent first.

        Returns:
            What has to be sent first in another session; nothing if the connection was served to its end.
        """
        splice: ClientSplice | None = None
        try:
            self._send_pieces(pieces)
            self.attach(connection)
            outcome = await self.outcome
            if outcome is Outcome.MOVED:
                splice = ClientSplice(
                    self.moved_to, connection, self.rewriter, [*self.unsent], is_fresh=False, answered=self._answered
                )
                await splice.run()
                return [] if splice.upgrade_head is None else [splice.upgrade_head]
            if outcome is Outcome.UPGRADE:
                self.reset()
                return [self._upgrade_head]
            if outcome is Outcome.LOST and isinstance(self.error, NoChannels):
                return [*self._multiplexer.unconfirmed(self.number), *self._pending]
            if outcome is Outcome.RESET:
                await self.reset_behind_bytes()
            elif outcome is Outcome.REFUSED and self.rewriter.refused is not None:
                self.reset()
                await self._refuse(connection, self.rewriter.refused)
            elif outcome is Outcome.OVER:
                connection.close()
            else:
                reset_socket(connection)
            return []
        except BaseException:
            reset_socket(connection)
            raise
        finally:
            self.detach()
            if self._moving is not None:
                self._moving.cancel()
            if self.own_session is not None and splice is None:
                self.own_session.abort(RESET_BROKEN)

    async def _refuse(self, connection: socket.socket, refused: RequestRefused) -> None:
        if can_answer(self.rewriter.reader, self._answered):
            await self.wait_until_written()
            await answer(connection, refused.status, refused.text)
        else:
            reset_socket(connection)

    def _send_pieces(self, pieces: Pieces) -> None:
        rewriter = self.rewriter
        if rewriter.upgrade:
            self._upgrade_head = pieces.pop()
        for piece in pieces:
            self.send(piece)
        if rewriter.upgrade:
            self._finish(Outcome.UPGRADE)
        elif rewriter.refused is not None:
            self._finish(Outcome.REFUSED)

    def _pass_on(self, data: bytes) -> None:
        self._send_pieces(self.rewriter.rewrite(data))

    def on_data(self, data: bytes) -> None:
        self._write(data)
        self._return_credit(len(data))
        self._answered = self.rewriter.reader.requests

    def on_move(self) -> None:
        if self._moving is None and self.is_known and not self.outcome.done():
            self._moving = asyncio.ensure_future(self._open_own())

    def on_moved(self) -> None:
        if self.own_session is None and (self._moving is None or self._moving.done()):
            self._finish(Outcome.LOST)  # there is no session in which the rest could come
        super().on_moved()

    async def _open_own(self) -> None:
        try:
            session = await self._connect(MoveChannel(self._multiplexer.token, self.number))
        except (P2PError, ApplicationError):  # the channel goes on as it is
            if self._is_rest_moved:
                self._finish(Outcome.LOST)
        else:
            self.move_to(session)
