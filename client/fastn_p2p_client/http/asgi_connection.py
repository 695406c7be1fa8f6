"""Serve the requests of one session with an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, MutableMapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import h11

from ..errors import P2PError
from ..limits import RESET_FAILED, RESET_LOST
from ..session.session import Session
from .caller_headers import REQUEST_ID, with_caller
from .error_response import error_response
from .request_reader import RequestEnd, RequestEvent, RequestHead, RequestReader, RequestRefused, without_upgrade
from .stream_channel import StreamChannel

WEBSOCKET: Final = b"websocket"
MAX_DISCARDED: Final = 1 << 20
"""Bytes of a body that the application has not read and that are discarded before the next request. Beyond them the
connection ends."""
_BODILESS: Final = (204, 304)
_log = logging.getLogger("fastn_p2p.http")

Message = MutableMapping[str, Any]


class ClientGone(OSError):
    """The caller has gone, so the application's answer cannot arrive."""


class AsgiConnection:
    """HTTP/1.1 connection of a caller. Requests are served one after the other.

    Args:
        state: state that the application has made at its start.
    """

    def __init__(self, app: Any, session: Session | StreamChannel, state: dict[str, Any]) -> None:
        self._app = app
        self._session = session
        self._state = state
        self._reader = RequestReader(self._check)
        self._events: Iterator[RequestEvent] = iter(())
        self._peeked: RequestEvent | None = None
        self._refused: RequestRefused | None = None

    def _check(self, head: RequestHead) -> RequestHead:
        if head.upgrade and (head.upgrade != WEBSOCKET or not isinstance(self._session, Session)):
            head = without_upgrade(head)
        head = with_caller(head, self._session.peer)
        request_id = f"{self._session.request_id}/{self._reader.requests + 1:x}"
        return head._replace(headers=[*head.headers, (REQUEST_ID, request_id.encode())])

    async def run(self) -> None:
        """Serve until the caller ends the connection."""
        try:
            while (head := await self.next_event()) is not None:
                if not isinstance(head, RequestHead):
                    continue
                if head.upgrade and isinstance(self._session, Session):
                    from .websocket_exchange import WebSocketExchange

                    await WebSocketExchange(self._app, self._scope(head), self._session, head, self._reader).run()
                    return
                exchange = _HttpExchange(self, head)
                if not await exchange.run(self._app, self._scope(head)):
                    break
            await self._session.close()
        except RequestRefused as refused:
            with contextlib.suppress(P2PError):
                await self._session.write(error_response(refused.status, refused.text))
                await self._session.close()
        except P2PError:
            self._session.abort(RESET_LOST)  # the caller has gone

    @property
    def session(self) -> Session | StreamChannel:
        """Session, or channel of one, that the connection is."""
        return self._session

    @property
    def unread(self) -> int:
        """Bytes that the request's body still has to bring, if it has a length."""
        return self._reader.unread

    async def next_event(self) -> RequestEvent | None:
        """Return the next event of the requests; None when the caller has sent everything.

        Raises:
            RequestRefused: the rest cannot be read.
            P2PError: the caller has gone.
        """
        if self._refused is not None:
            raise self._refused
        if self._peeked is not None:
            event, self._peeked = self._peeked, None
            return event
        while True:
            for event in self._events:
                return event
            data = await self._session.read()
            if not data:
                return None
            self._events = self._reader.feed(data)

    async def wait_for_end(self) -> None:
        """Return when the caller has ended its direction, or has gone. Requests that come are kept for later."""
        try:
            self._peeked = await self.next_event()
        except P2PError:
            return
        except RequestRefused as refused:
            self._refused = refused
        if self._peeked is not None or self._refused is not None:
            await asyncio.get_running_loop().create_future()

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        path, _, query = head.target.partition(b"?")
        peer = self._session.peer
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version.decode(),
            "method": head.method.decode(),
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in head.headers],
            "client": (peer.key.id52, 0),
            "server": None,
            "state": self._state.copy(),
            "fastn_p2p.peer": peer,
            "fastn_p2p.request_id": (head.value(REQUEST_ID.lower()) or b"").decode(),
        }
        if head.upgrade:
            protocols = head.values(b"sec-websocket-protocol")
            del scope["method"]
            scope |= {"type": "websocket", "scheme": "ws", "subprotocols": [each.decode() for each in protocols]}
        return scope


class _HttpExchange:
    """Request and its response."""

    def __init__(self, connection: AsgiConnection, head: RequestHead) -> None:
        self._connection = connection
        self._session = connection.session
        self._head = head
        self._is_read = False
        """The request's body is complete, or the caller has gone."""
        self._expects_continue = b"100-continue" in head.values(b"expect") and head.version == b"1.1"
        options = head.values(b"connection")
        self._keeps = b"close" not in options and (head.version == b"1.1" or b"keep-alive" in options)
        self._start: Message | None = None
        self._has_started = False
        self._is_complete = False
        self._is_chunked = False
        self._left: int | None = None
        """Bytes of the response's body that are to come; None if it has no length."""
        self._gone: asyncio.Future[None] | None = None

    async def run(self, app: Any, scope: dict[str, Any]) -> bool:
        """Return whether the connection can carry another request.

        Raises:
            RequestRefused: the request's body is invalid, and no response has begun.
            P2PError: the caller has gone.
        """
        try:
            await app(scope, self._receive, self._send)
        except ClientGone:
            self._session.abort(RESET_FAILED)
            return False
        except (RequestRefused, P2PError):
            if self._has_started:
                self._session.abort(RESET_FAILED)
                return False
            raise
        except Exception:
            _log.exception("the application has failed")
            if not self._has_started:
                await self._session.write(error_response(500, "The application has failed. Its log says why."))
            else:
                self._session.abort(RESET_FAILED)
            return False
        if not self._is_complete:
            _log.error("the application has ended without a complete response")
            if self._has_started:
                self._session.abort(RESET_FAILED)
            else:
                await self._session.write(error_response(500, "The application has not answered."))
            return False
        return self._keeps and await self._discard_rest()

    async def _discard_rest(self) -> bool:
        left = MAX_DISCARDED
        while not self._is_read:
            if self._expects_continue:
                return False  # the caller may send the body or not
            event = await self._connection.next_event()
            if event is None or isinstance(event, RequestEnd):
                self._is_read = True
            elif isinstance(event, bytes | memoryview):
                left -= len(event)
                if left < 0:
                    return False
        return True

    async def _receive(self) -> Message:
        if self._is_read:
            await self._wait_until_gone()
            return {"type": "http.disconnect"}
        if self._expects_continue:
            self._expects_continue = False
            if not self._has_started:
                await self._session.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            event = await self._connection.next_event()
        except P2PError:
            event = None
        if event is None:
            self._is_read = True
            self._keeps = False
            return {"type": "http.disconnect"}
        if isinstance(event, RequestEnd):
            self._is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if isinstance(event, RequestHead):
            raise RuntimeError("a request has begun within another one")
        return {"type": "http.request", "body": bytes(event), "more_body": True}

    async def _wait_until_gone(self) -> None:
        """Wait until the caller goes, or the response is complete."""
        if self._is_complete:
            return
        self._gone = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(self._connection.wait_for_end())
        try:
            await asyncio.wait([waiting, self._gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            if self._start is not None:
                raise RuntimeError("the response has begun already")
            self._start = message
            return
        if kind != "http.response.body" or self._start is None or self._is_complete:
            raise RuntimeError(f"{kind} cannot be sent now")
        body, more = message.get("body", b""), message.get("more_body", False)
        pieces: list[bytes] = []
        if not self._has_started:
            pieces.append(self._response_head(self._start, len(body), more))
            self._has_started = True
        if self._head.method == b"HEAD" or self._start["status"] in _BODILESS:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body has another length than the response says")
        elif self._is_chunked and body:
            pieces += (b"%x\r\n" % len(body), body, b"\r\n")
            body = b""
        if body:
            pieces.append(body)
        if not more and self._is_chunked and self._head.method != b"HEAD":
            pieces.append(b"0\r\n\r\n")
        try:
            if pieces:
                await self._session.write(b"".join(pieces) if len(pieces) > 1 else pieces[0])
        except P2PError as error:
            raise ClientGone(str(error)) from error
        if not more:
            self._is_complete = True
            if self._gone is not None and not self._gone.done():
                self._gone.set_result(None)

    def _response_head(self, start: Message, size: int, more: bool) -> bytes:
        """Return the head of the response.

        Raises:
            h11.LocalProtocolError: a header is invalid.
        """
        status = start["status"]
        given = [(bytes(name), bytes(value)) for name, value in start.get("headers", ())]
        checked = h11.Response(status_code=status, headers=given)
        headers = [(name, value) for name, value in checked.headers if name != b"transfer-encoding"]
        names = {name for name, _ in headers}
        if b"content-length" in names:
            self._left = int(next(value for name, value in headers if name == b"content-length"))
        elif status not in _BODILESS and not (more is False and self._head.method == b"HEAD"):
            if not more:
                headers.append((b"content-length", b"%d" % size))
                self._left = size
            elif self._head.version == b"1.1":
                headers.append((b"transfer-encoding", b"chunked"))
                self._is_chunked = True
            else:
                self._keeps = False
        if b"date" not in names:
            headers.append((b"date", formatdate(usegmt=True).encode()))
        if not self._is_read and self._connection.unread > MAX_DISCARDED:
            self._keeps = False
        if any(name == b"connection" and b"close" in value.lower() for name, value in headers):
            self._keeps = False
        elif not self._keeps:
            headers.append((b"connection", b"close"))
        with contextlib.suppress(ValueError):
            status_line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
            return status_line + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n"
        return b"HTTP/1.1 %d \r\n" % status + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n"
