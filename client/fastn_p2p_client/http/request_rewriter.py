"""Pass the requests of a connection on, with other heads. Bodies that have a length are not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import h11

from .caller_headers import REQUEST_ID, safe_trailers
from .request_reader import RequestEvent, RequestHead, RequestReader, RequestRefused, encode_head

_JOIN: Final = 16 * 1024
"""Bytes up to which a part of a body is sent together with its head."""

Pieces: TypeAlias = list[bytes | memoryview]
"""Bytes to send one after the other."""


class RequestRewriter:
    """Turns bytes of a client into bytes for a service.

    Args:
        check: returns the head that replaces one, or raises ``RequestRefused``.
        connection_id: request id of the connection, of which each request gets its own; empty for none.

    Attributes:
        reader: the reader of the requests.
        refused: why nothing more is passed on; None as long as the requests are in order.
        upgrade: whether the connection may become another protocol's: the answer of the service decides.
    """

    def __init__(self, check: Callable[[RequestHead], RequestHead], connection_id: str = "") -> None:
        self._head_end = b"%s: %s/%%x\r\n\r\n" % (REQUEST_ID, connection_id.encode()) if connection_id else b""
        self.reader = RequestReader(check)
        self.refused: RequestRefused | None = None
        self.upgrade = False
        self._last_headers = b""
        """Headers that were sent with the last request, without its id."""

    def rewrite(self, data: bytes) -> Pieces:
        """Return what to send for bytes of the client: all that came before the first error.

        The head of an upgrade is a piece of its own, the last one.
        """
        if self._last_headers and (line := self.reader.repeated(data)) is not None:
            return [line + self._last_headers + self._end_of_head()]
        try:
            head = self.reader.read_whole(data)
        except RequestRefused as refused:
            self.refused = refused
            return []
        if head is not None:
            return [self._encode_head(head)]
        return self._encode(self.reader.feed(data))

    def _encode_head(self, head: RequestHead) -> bytes:
        encoded = encode_head(head)[:-2]
        self._last_headers = encoded[encoded.index(b"\r\n") :]
        return encoded + self._end_of_head()

    def _end_of_head(self) -> bytes:
        return self._head_end % self.reader.requests if self._head_end else b"\r\n"

    def stay(self) -> Pieces:
        """Return what to send once the service has not agreed to an upgrade."""
        self.upgrade = False
        return self._encode(self.reader.resume())

    def _encode(self, events: Iterator[RequestEvent]) -> Pieces:
        pieces: Pieces = []
        try:
            for event in events:
                if isinstance(event, RequestHead):
                    pieces.append(self._encode_head(event))
                    self.upgrade = bool(event.upgrade)
                elif isinstance(event, bytes | memoryview):
                    pieces += (b"%x\r\n" % len(event), event, b"\r\n") if self.reader.chunked else (event,)
                elif self.reader.chunked:
                    trailers = [b"%s: %s\r\n" % trailer for trailer in safe_trailers(event.trailers)]
                    pieces.append(b"0\r\n" + b"".join(trailers) + b"\r\n")
        except RequestRefused as refused:
            self.refused = refused
        return [*_joined(pieces[:-1]), pieces[-1]] if self.upgrade and pieces else _joined(pieces)


def _joined(pieces: Pieces) -> Pieces:
    """Join small pieces: each one that is sent alone costs a system call."""
    joined: Pieces = []
    small: Pieces = []
    for piece in pieces:
        if len(piece) <= _JOIN:
            small.append(piece)
            continue
        if small:
            joined.append(b"".join(small))
            small = []
        joined.append(piece)
    if small:
        joined.append(b"".join(small) if len(small) > 1 else small[0])
    return joined


class UpgradeAnswer:
    """Reader of a service's answer to an upgrade, the first answer of its connection."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.CLIENT)
        asked = [("Host", "service"), ("Connection", "upgrade"), ("Upgrade", "any")]
        for event in (h11.Request(method="GET", target="/", headers=asked), h11.EndOfMessage()):
            self._connection.send(event)

    def feed(self, data: bytes) -> bool | None:
        """Return whether the service has agreed; None as long as that is not known."""
        self._connection.receive_data(data)
        try:
            while isinstance(event := self._connection.next_event(), h11.InformationalResponse):
                if event.status_code == 101:
                    return True
        except h11.RemoteProtocolError:
            return False
        return False if isinstance(event, h11.Response) else None
