"""Splice of a socket and a session that carry HTTP: requests get other heads, answers pass untouched.

After an upgrade to which the service has agreed, both directions pass untouched. Only the first request of a session
may ask for one: its answer is the first one, so that nobody can pass the bytes of another answer off as agreement.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.http.error_response import error_response
from fastn_p2p_client.http.request_reader import RequestReader, RequestRefused
from fastn_p2p_client.http.request_rewriter import Pieces, RequestRewriter, UpgradeAnswer
from fastn_p2p_client.session.session import Session

from .._shared.splice import RESET_BROKEN, Splice, reset_socket

_LINGER_SECONDS: Final = 2.0
"""Seconds for which bytes of a client are discarded after an error, so that it can read the answer."""


def can_answer(reader: RequestReader, answered: int) -> bool:
    """Return whether an answer of ours would not stand in the middle of one of the service.

    Answers are not parsed. A client that waits for each answer has read all of them when it sends a request.

    Args:
        answered: requests that had been passed on when the last byte of an answer came.
    """
    passed_on = reader.requests if reader.is_between else reader.requests - 1
    return passed_on <= answered <= (reader.requests if reader.is_between else passed_on)


class _HttpSplice(Splice):
    """Base of both ends.

    Args:
        pieces: what is sent to the session first.
        answered: see ``can_answer``.
    """

    def __init__(
        self,
        session: Session,
        connection: socket.socket,
        rewriter: RequestRewriter,
        pieces: Pieces,
        *,
        answered: int = 0,
    ) -> None:
        self._pieces = pieces
        self._rewriter = rewriter
        self._answer: UpgradeAnswer | None = None
        self._agreed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answered = answered
        super().__init__(session, connection)

    async def _until_the_end(self) -> P2PError | None:
        try:
            return await super()._until_the_end()
        except RequestRefused as refused:
            with contextlib.suppress(P2PError, OSError, TimeoutError):
                await self._refuse(refused)
            return None

    async def _refuse(self, refused: RequestRefused) -> None:
        """Answer a request that was not passed on, and end both connections."""
        raise NotImplementedError

    async def _pass_requests(
        self,
        pieces: Pieces,
        read: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes | memoryview], Awaitable[Any]],
    ) -> None:
        """Pass requests on until their end.

        Args:
            pieces: what is sent first.

        Raises:
            RequestRefused: the rest is not passed on.
        """
        rewriter = self._rewriter
        while True:
            for number, piece in enumerate(pieces, 1):
                if rewriter.upgrade and number == len(pieces):
                    self._before_upgrade(piece)
                await send(piece)
            if rewriter.upgrade:
                if await self._agreed:
                    if rest := rewriter.reader.release():
                        await send(rest)
                    while data := await read():
                        await send(data)
                    return
                pieces = rewriter.stay()
                continue
            if rewriter.refused is not None:
                raise rewriter.refused
            data = await read()
            if not data:
                return
            pieces = rewriter.rewrite(data)

    def _before_upgrade(self, head: bytes | memoryview) -> None:
        """Is called with the head of a request for an upgrade before it is sent."""

    def _watch_answer(self, data: bytes) -> None:
        """Look at bytes of the service that were passed on; no bytes are the end."""
        self._answered = self._rewriter.reader.requests
        if self._rewriter.upgrade and not self._agreed.done():
            if self._answer is None:
                self._answer = UpgradeAnswer()
            agreed = self._answer.feed(data) if data else False
            if agreed is not None:
                self._agreed.set_result(agreed)


class ServiceSplice(_HttpSplice):
    """Splice on the machine of the service: the session brings requests. ``pieces`` are sent to the session first."""

    async def _session_to_socket(self) -> None:
        send, connection = self._loop.sock_sendall, self._connection
        await self._pass_requests([], self._session.read, lambda piece: send(connection, piece))
        await self._end_connection()

    async def _socket_to_session(self) -> None:
        session = self._session
        for piece in self._pieces:
            await session.write(piece)
        while data := await self._receive():
            await session.write(data)
            self._passed_on_at = self._loop.time()
            self._watch_answer(data)
        self._watch_answer(b"")
        await session.send_eof()

    async def _refuse(self, refused: RequestRefused) -> None:
        self._from_socket.cancel()
        await asyncio.gather(self._from_socket, return_exceptions=True)
        reset_socket(self._connection)
        if can_answer(self._rewriter.reader, self._answered):
            await self._session.write(error_response(refused.status, refused.text))
            await self._session.close()
        else:
            self._session.abort(RESET_BROKEN)


class ClientSplice(_HttpSplice):
    """Splice on the machine of the client: its connection brings requests.

    Args:
        pieces: what is sent to the session first.
        is_fresh: whether no request of this connection was sent to the peer yet.

    Attributes:
        upgrade_head: head of a request for an upgrade that needs a session of its own, because this one has carried
            requests. The connection is then left open.
    """

    def __init__(
        self,
        session: Session,
        connection: socket.socket,
        rewriter: RequestRewriter,
        pieces: Pieces,
        *,
        is_fresh: bool = True,
        answered: int = 0,
    ) -> None:
        self._is_fresh = is_fresh
        self.upgrade_head: bytes | memoryview | None = None
        super().__init__(session, connection, rewriter, pieces, answered=answered)

    async def _until_the_end(self) -> P2PError | None:
        try:
            return await super()._until_the_end()
        except _UpgradeNeedsSession as needed:
            self.upgrade_head = needed.head
            for task in (self._to_socket, self._sent):
                task.cancel()
            await asyncio.gather(self._to_socket, self._sent, return_exceptions=True)
            with contextlib.suppress(P2PError):
                await self._session.close()
            return None

    async def _socket_to_session(self) -> None:
        await self._pass_requests(self._pieces, self._receive, self._send)
        await self._session.send_eof()

    def _before_upgrade(self, head: bytes | memoryview) -> None:
        if not self._is_fresh:
            raise _UpgradeNeedsSession(head)

    async def _send(self, piece: bytes | memoryview) -> None:
        self._is_fresh = False
        await self._session.write(piece)
        self._passed_on_at = self._loop.time()

    async def _session_to_socket(self) -> None:
        send, connection = self._loop.sock_sendall, self._connection
        while chunk := await self._session.read():
            await send(connection, chunk)
            self._watch_answer(chunk)
        self._watch_answer(b"")
        await self._end_connection()

    async def _refuse(self, refused: RequestRefused) -> None:
        self._to_socket.cancel()
        await asyncio.gather(self._to_socket, return_exceptions=True)
        self._session.abort(RESET_BROKEN)
        if can_answer(self._rewriter.reader, self._answered):
            await answer(self._connection, refused.status, refused.text)
        else:
            reset_socket(self._connection)


class _UpgradeNeedsSession(Exception):
    def __init__(self, head: bytes | memoryview) -> None:
        super().__init__()
        self.head = head


async def answer(connection: socket.socket, status: int, text: str, *, has_body: bool = True) -> None:
    """Answer a client ourselves, and close its connection once it has had time to read that."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await loop.sock_sendall(connection, error_response(status, text, has_body=has_body))
            connection.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(connection, 1 << 16):
                pass
    connection.close()
