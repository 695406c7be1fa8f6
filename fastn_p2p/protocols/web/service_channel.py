"""A channel on the machine of the service, and its connection there."""

from __future__ import annotations

import asyncio
import socket

from fastn_p2p_client.http.error_response import error_response
from fastn_p2p_client.http.multiplexer import Multiplexer
from fastn_p2p_client.http.request_rewriter import RequestRewriter

from .._shared.splice import DISCARD_SECONDS, RESET_BROKEN, reset_socket
from .http_splice import ServiceSplice, can_answer
from .socket_channel import Outcome, SocketChannel


class ServiceChannel(SocketChannel):
    """End on the machine of the service: the channel brings requests."""

    def __init__(self, multiplexer: Multiplexer, number: int, rewriter: RequestRewriter) -> None:
        super().__init__(multiplexer, number, rewriter)
        self.answered = 0
        self._wants_move = False
        self._received_end: asyncio.Future[None] = self._loop.create_future()

    async def run(self, connection: socket.socket) -> None:
        """Pass bytes until the channel is over, also in a session of its own."""
        outcome = Outcome.LOST
        try:
            self.attach(connection)
            outcome = await self.outcome
            if outcome is Outcome.MOVED:
                await ServiceSplice(self.moved_to, connection, self.rewriter, self.unsent, answered=self.answered).run()
            elif outcome is Outcome.RESET:
                await self.reset_behind_bytes()
            elif outcome is Outcome.REFUSED and self.rewriter.refused is not None:
                refused = self.rewriter.refused
                reset_socket(connection)
                if can_answer(self.rewriter.reader, self.answered):
                    await self.answer(error_response(refused.status, refused.text))
                else:
                    self.reset()
            elif outcome is Outcome.OVER:
                connection.close()
        finally:
            self.detach()
            reset_socket(connection)
            if self.own_session is not None and outcome is not Outcome.MOVED:
                self.own_session.abort(RESET_BROKEN)

    async def answer(self, answer: bytes) -> None:
        """Answer in place of the service, and discard what the client sends for a while."""
        self._finish(Outcome.REFUSED)
        self.send(answer)
        self.end()
        await asyncio.wait([self._received_end], timeout=DISCARD_SECONDS)
        self.reset()

    def answer_and_reset(self, answer: bytes) -> None:
        """Answer in place of the service, and forget the channel at once."""
        self._finish(Outcome.REFUSED)
        if not self._multiplexer.is_congested:
            self.send(answer)
            self.end()
        self.reset()

    def on_data(self, data: bytes) -> None:
        if self._discards:
            self.consume(len(data))
            return
        rewriter = self.rewriter
        for piece in rewriter.rewrite(data):
            self._write(piece)
        self._return_credit(len(data))
        if rewriter.refused is not None:
            self._finish(Outcome.REFUSED)

    def on_end(self) -> None:
        if not self._received_end.done():
            self._received_end.set_result(None)
        super().on_end()

    def on_reset(self, error: Exception | None) -> None:
        if not self._received_end.done():
            self._received_end.set_result(None)
        super().on_reset(error)

    def _pass_on(self, data: bytes) -> None:
        self.send(data)
        self.answered = self.rewriter.reader.requests

    def on_move(self) -> None:
        if not self._wants_move:
            self._wants_move = True
            self.want_move()
