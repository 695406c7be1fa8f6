"""Serve one WebSocket of a session with an ASGI application. wsproto reads and writes its frames."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any, Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from ..errors import P2PError
from ..limits import RESET_FAILED
from ..session.session import Session
from .request_reader import RequestHead, RequestReader, encode_head

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes, or characters, of one message."""
_GONE: Final = 1006
_TOO_LARGE: Final = 1009
_FAILED: Final = 1011
_log = logging.getLogger("fastn_p2p.http")


class WebSocketExchange:
    """WebSocket, from the request for it to its end."""

    def __init__(
        self, app: Any, scope: dict[str, Any], session: Session, head: RequestHead, reader: RequestReader
    ) -> None:
        self._app = app
        self._scope = scope
        self._session = session
        self._frames = WSConnection(ConnectionType.SERVER)
        self._frames.receive_data(encode_head(head))
        self._rest = reader.release()
        self._parts: list[Any] = []
        self._size = 0
        self._is_connected = self._is_accepted = self._is_closed = False
        self._events: list[Event] = []

    async def run(self) -> None:
        """Run until both sides have ended it."""
        try:
            if not any(isinstance(event, Request) for event in self._frames.events()):
                raise RemoteProtocolError("the request is no WebSocket's")
        except RemoteProtocolError as error:
            from .error_response import error_response

            await self._session.write(error_response(400, f"the WebSocket's request is invalid: {error}"))
            await self._session.close()
            return
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            if not (isinstance(error, OSError) and self._is_closed):
                _log.exception("the application has failed")
            await self._end(_FAILED)
        else:
            await self._end(1000)

    async def _end(self, code: int) -> None:
        """Close what the application has left open."""
        try:
            if not self._is_closed:
                self._is_closed = True
                await self._write(CloseConnection(code) if self._is_accepted else RejectConnection(status_code=403))
            await self._session.close()
        except (P2PError, LocalProtocolError):
            self._session.abort(RESET_FAILED)

    async def _write(self, event: Event) -> None:
        if data := self._frames.send(event):
            await self._session.write(data)

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        while not self._is_closed:
            try:
                while self._events:
                    message = await self._on_event(self._events.pop(0))
                    if message is not None:
                        return message
                data, self._rest = self._rest or await self._session.read(), b""
                self._frames.receive_data(data or None)
                self._events = list(self._frames.events())
            except RemoteProtocolError as error:
                if error.event_hint is not None:
                    with contextlib.suppress(P2PError, LocalProtocolError):
                        await self._write(error.event_hint)
                break
            except (P2PError, LocalProtocolError):
                break
        self._is_closed = True
        return {"type": "websocket.disconnect", "code": _GONE, "reason": ""}

    async def _on_event(self, event: Event) -> MutableMapping[str, Any] | None:
        """Return the message for the application that an event completes."""
        if isinstance(event, Message):
            return await self._on_message(event)
        if isinstance(event, Ping):
            await self._write(event.response())
        elif isinstance(event, CloseConnection):
            self._is_closed = True
            with contextlib.suppress(P2PError, LocalProtocolError):
                await self._write(event.response())
            return {"type": "websocket.disconnect", "code": event.code, "reason": event.reason or ""}
        return None

    async def _on_message(self, event: Message[Any]) -> MutableMapping[str, Any] | None:
        self._parts.append(event.data)
        self._size += len(event.data)
        if self._size > MAX_MESSAGE:
            self._is_closed = True
            await self._write(CloseConnection(_TOO_LARGE))
            return {"type": "websocket.disconnect", "code": _TOO_LARGE, "reason": ""}
        if not event.message_finished:
            return None
        parts, self._parts, self._size = self._parts, [], 0
        if isinstance(event, TextMessage):
            return {"type": "websocket.receive", "text": "".join(parts)}
        return {"type": "websocket.receive", "bytes": b"".join(parts)}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if self._is_closed:
            raise OSError("the WebSocket is closed")
        try:
            await self._send_open(message)
        except P2PError as error:
            self._is_closed = True
            raise OSError(str(error)) from error

    async def _send_open(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.accept" and not self._is_accepted:
            self._is_accepted = True
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            await self._write(
                AcceptConnection(
                    subprotocol=message.get("subprotocol"), extensions=[PerMessageDeflate()], extra_headers=headers
                )
            )
        elif kind == "websocket.close":
            self._is_closed = True
            if self._is_accepted:
                await self._write(CloseConnection(message.get("code", 1000), message.get("reason") or None))
            else:
                await self._write(RejectConnection(status_code=403))
        elif kind == "websocket.send" and self._is_accepted:
            if message.get("bytes") is not None:
                await self._write(BytesMessage(message["bytes"]))
            else:
                await self._write(TextMessage(message["text"]))
        else:
            raise RuntimeError(f"{kind} cannot be sent now")
