"""nats-py's client without its queues, and with TLS where TLS is needed.

Problem: nats-py passes each message through a queue and a task at each end, which took 0.3 ms of a call, and as much
processor time as all the rest. Idea: a message is handled where it is parsed, and written at once. Cost: four of its
methods are used that are not public, so its version is pinned, and tests cover each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from nats.aio.client import Client

OnMessage: TypeAlias = Callable[[str, bytes, bool], None]
"""Takes subject, data, and whether the message says that nobody was there to receive an earlier one."""

_MESSAGE: Final = b"MSG "
_END: Final = b"\r\n"
_NO_RESPONDERS: Final = b"NATS/1.0 503"

log = logging.getLogger(__name__)


class DirectClient(Client):
    """Connection to a NATS server.

    Args:
        needs_tls: end the connection before credentials are sent, if the server offers no TLS. nats-py uses TLS only
            if the server says so in clear text, where anybody on the path can change it.
    """

    def __init__(self, *, needs_tls: bool) -> None:
        super().__init__()
        self._needs_tls = needs_tls
        self._functions: dict[int, OnMessage] = {}

    async def subscribe_directly(self, subject: str, function: OnMessage) -> None:
        """Have each message on a subject passed to a function."""

        async def on_early_message(message: Any) -> None:
            function(message.subject, message.data, False)

        subscription = await self.subscribe(subject, cb=on_early_message)
        self._functions[subscription._id] = function

    def publish_directly(self, subject: str, reply: str, data: bytes) -> None:
        """Write a message to the socket now, or as soon as it takes it. Raises an exception without a connection."""
        head = f"PUB {subject} {reply} {len(data)}\r\n" if reply else f"PUB {subject} {len(data)}\r\n"
        if self._transport is None:
            raise ConnectionError("there is no connection")
        self._transport.write(b"".join((head.encode(), data, b"\r\n")))

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        writer = getattr(self._transport, "_io_writer", None)
        return 0 if writer is None else writer.transport.get_write_buffer_size()

    def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> Any:
        function = self._functions.get(sid)
        if function is None:
            return super()._process_msg(sid, subject, reply, data, headers)
        self._handle(function, subject, data, is_unreachable=bool(headers) and headers.startswith(_NO_RESPONDERS))
        return _done

    def _connect_command(self) -> bytes:
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise ConnectionError("it offers no TLS, which the URL or the CA file asks for")
        reader: Any = self._transport._io_reader  # type: ignore[union-attr]
        read_later = reader.feed_data

        def read(data: bytes) -> None:
            """Handle whole messages at once, and leave all else to nats-py, in order."""
            if not (reader._buffer or self._ps.buf):
                data = self._handle_messages(data)
            if data:
                read_later(data)

        reader.feed_data = read
        return super()._connect_command()

    def _handle_messages(self, data: bytes) -> bytes:
        """Handle the complete messages at the begin of ``data``. Return the rest."""
        position = 0
        while data.startswith(_MESSAGE, position):
            end = data.find(_END, position)
            if end < 0:
                break
            subject, number, *_, size = data[position + len(_MESSAGE) : end].split(b" ")
            start = end + len(_END)
            stop = start + int(size)
            function = self._functions.get(int(number))
            if function is None or stop + len(_END) > len(data):
                break
            self._handle(function, subject, data[start:stop], is_unreachable=False)
            position = stop + len(_END)
        return data[position:]

    @staticmethod
    def _handle(function: OnMessage, subject: bytes, data: bytes, *, is_unreachable: bool) -> None:
        try:
            function(subject.decode(), data, is_unreachable)
        except Exception:
            log.exception("a message on %s failed", subject[:200])


class _Done:
    """Awaitable that is done, each time that it is awaited."""

    def __await__(self) -> Any:
        return iter(())


_done: Final = _Done()
