"""Read the requests of an HTTP/1.1 connection, and refuse what two programs could understand differently.

Plain heads of requests without a body are read by one regular expression, in a tenth of the time that h11 takes. h11
parses all others. What it accepts beyond the standard's strict form is refused here: a line that ends without CR, a
folded line, Content-Length beside Transfer-Encoding, Transfer-Encoding in HTTP/1.0. A line that cannot belong to a head
is refused when it ends, so that no client waits behind it for an answer. Bodies are passed on without a copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Final, NamedTuple, TypeAlias

import h11

from .chunked_body import HEADER_LINE, ChunkedBody, InvalidBody

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request head."""
_BAD_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)(?=.)", re.DOTALL)
_FOLDED_LINE: Final = re.compile(rb"\r\n[ \t]")
_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_AUTHORITY: Final = re.compile(rb"https?://([^/?#@]+)(.*)", re.IGNORECASE | re.DOTALL)
_BODILESS: Final = (b"", b"0")
_PLAIN_LINE: Final = re.compile(rb"([A-Z]{1,16}) /[!-~]* HTTP/1\.1")
"""Request line whose target can be replaced by that of another one."""
_PLAIN_HEAD: Final = re.compile(
    rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1\r\n((?:[A-Za-z0-9-]{1,64}: ?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
"""Head as nearly all are: less than the standard allows, so that any program reads it in the same way."""
_PLAIN_HEADER: Final = re.compile(rb"([^:]+): ?([^\r]+)\r\n")
_OF_BODY: Final = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})
_MAX_REPEATED: Final = 4 * 1024
"""Bytes of the headers that are compared with those of the next request."""


class RequestRefused(Exception):
    """A request that is not passed on. ``text`` says to its sender what is wrong."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class RequestHead(NamedTuple):
    """Head of a request. Names of headers are as they were sent; a target with a host was split into the two."""

    method: bytes
    target: bytes
    version: bytes
    """``1.1`` or ``1.0``."""
    headers: list[tuple[bytes, bytes]]
    upgrade: bytes = b""
    """Protocol that the connection changes to if the service agrees, in lower case; empty without one."""

    def value(self, name: bytes) -> bytes | None:
        """Return the value of the first header with a name in lower case; None without one."""
        return next((value for each, value in self.headers if each.lower() == name), None)

    def values(self, name: bytes) -> list[bytes]:
        """Return the elements of all headers with a name in lower case, whose values are lists, in lower case."""
        parts = (part for each, value in self.headers if each.lower() == name for part in value.lower().split(b","))
        return [part.strip() for part in parts if part.strip()]


class RequestEnd(NamedTuple):
    """End of a request, with its trailers."""

    trailers: list[tuple[bytes, bytes]]


RequestEvent: TypeAlias = RequestHead | bytes | memoryview | RequestEnd
"""A head, a part of its body, or its end."""


class RequestReader:
    """Reader of the requests of one connection.

    A client sends nearly the same headers each time. So a request without a body whose headers are, byte for byte,
    those of the one before is not parsed again: reading one takes 40 us with h11, comparing it 1 us.

    Args:
        check: returns the head that replaces one, or raises ``RequestRefused``. It must not depend on the target.

    Attributes:
        requests: heads so far.
        chunked: whether the body of the last request has no length of its own.
        is_between: whether no request has begun and not ended.
    """

    def __init__(self, check: Callable[[RequestHead], RequestHead] = lambda head: head) -> None:
        self._check = check
        self._buffer = bytearray()
        self._chunks: ChunkedBody | None = None
        self._left = 0
        self._is_upgrade = False
        self._searched = self._checked = 0
        """Bytes of the buffer where no end of a head is, and bytes in lines that a head can have."""
        self._last_headers: bytes | None = None
        """Bytes behind the last request line; None if another request with them has to be parsed."""
        self._last_method = b""
        self.requests = 0
        self.chunked = False
        self.is_between = True

    @property
    def unread(self) -> int:
        """Bytes that a body with a length still has to bring."""
        return self._left

    def repeated(self, data: bytes) -> bytes | None:
        """Return the request line if bytes are one request that differs from the last one in nothing but the target.

        The request has been read then: its head is the last one with another target, and it has no body.
        """
        if self._last_headers is None or not self.is_between or self._buffer or not data.endswith(self._last_headers):
            return None
        plain = _PLAIN_LINE.fullmatch(data, 0, len(data) - len(self._last_headers))
        if plain is None or plain[1] != self._last_method:
            return None
        self.requests += 1
        return plain[0]

    def read_whole(self, data: bytes) -> RequestHead | None:
        """Return the head if bytes are one plain request without a body, which has been read then; else None.

        Raises:
            RequestRefused: as ``feed``.
        """
        if not self.is_between or self._is_upgrade or self._buffer or len(data) > MAX_HEAD:
            return None
        plain = _plain_head(data)
        if plain is None:
            return None
        self._last_headers = None
        head = self._check(plain)
        self.requests += 1
        self.chunked = False
        self._remember(data, head)
        return head

    def feed(self, data: bytes) -> Iterator[RequestEvent]:
        """Yield the events that bytes of the connection complete. After an upgrade, they wait for ``resume``.

        Raises:
            RequestRefused: no request can be read from here on.
        """
        whole = self.read_whole(data)
        if whole is not None:
            self.is_between = False
            yield whole
            yield self._end()
            return
        view = memoryview(data)
        while True:
            if self._is_upgrade:
                self._keep(view)
                return
            if self._left:
                part = view[: self._left]
                if not part:
                    return
                self._left -= len(part)
                view = view[len(part) :]
                yield part
                if not self._left:
                    yield self._end()
            elif self._chunks is not None:
                if not view or not (yield from self._read_chunks(self._chunks, view)):
                    return
                view = memoryview(b"")
            else:
                self._buffer += view
                view = memoryview(b"")
                head = self._read_head()
                if head is None:
                    return
                yield head
                if not self.chunked and not self._left:
                    yield self._end()
                view, self._buffer = memoryview(bytes(self._buffer)), bytearray()

    def resume(self) -> Iterator[RequestEvent]:
        """Yield what waited, because the service has not agreed to the upgrade. Raises as ``feed``."""
        self._is_upgrade = False
        data, self._buffer = bytes(self._buffer), bytearray()
        return self.feed(data)

    def release(self) -> bytes:
        """Return the bytes behind an upgrade to which the service has agreed. They are no requests."""
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def _keep(self, view: memoryview) -> None:
        self._buffer += view
        if len(self._buffer) > MAX_HEAD:
            raise RequestRefused(400, "more data follows an upgrade than can wait for the answer")

    def _end(self, trailers: list[tuple[bytes, bytes]] | None = None) -> RequestEnd:
        self.is_between = True
        return RequestEnd(trailers or [])

    def _read_head(self) -> RequestHead | None:
        """Return the head at the beginning of the buffer, which then holds what follows; None if it is incomplete."""
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before a request
            del buffer[:2]
        if not buffer:
            return None
        start = max(0, self._searched - 3)  # a head that comes byte by byte is not searched anew for each
        end = buffer.find(b"\r\n\r\n", start, MAX_HEAD)
        self._searched = len(buffer) if end < 0 else 0
        limit = end + 4 if end >= 0 else MAX_HEAD
        if _BAD_LINE_END.search(buffer, start, limit) or _FOLDED_LINE.search(buffer, start, limit):
            raise RequestRefused(400, "a line of the request's head is folded, or does not end with CR and LF")
        if end < 0:
            if len(buffer) >= MAX_HEAD:
                raise RequestRefused(431, f"the request's head is larger than {MAX_HEAD} bytes")
            if buffer[0] < 0x21 or buffer[0] > 0x7E:
                raise RequestRefused(400, "this is no HTTP/1.1")
            self._check_lines()
            return None
        self._checked = 0
        raw = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._last_headers = None
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        connection.receive_data(raw)
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise RequestRefused(error.error_status_hint, f"the request is invalid: {error}") from None
        if not isinstance(request, h11.Request):
            raise RequestRefused(400, "this is no request")
        head = self._check(_head_of(request))
        self.requests += 1
        self.is_between = False
        self._is_upgrade = bool(head.upgrade)
        self.chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        if self.chunked:
            self._chunks = ChunkedBody()
        else:
            self._left = int(next((value for name, value in request.headers if name == b"content-length"), b"0"))
        self._remember(raw, head)
        return head

    def _remember(self, raw: bytes, head: RequestHead) -> None:
        """Remember the headers of a request that has neither a body nor anything else that concerns the connection."""
        line, _, _ = raw.partition(b"\r\n")
        if self.chunked or self._left or head.upgrade or len(raw) - len(line) > _MAX_REPEATED:
            return
        plain = _PLAIN_LINE.fullmatch(line)
        if plain is not None and plain[1] == head.method and head.version == b"1.1":
            self._last_headers, self._last_method = raw[len(line) :], head.method

    def _check_lines(self) -> None:
        """Check each line that is complete of a head that is not."""
        while end := self._buffer.find(b"\n", self._checked) + 1:
            line = HEADER_LINE if self._checked else _REQUEST_LINE
            if line.fullmatch(self._buffer, self._checked, end) is None:
                what = "header" if self._checked else "request line"
                raise RequestRefused(400, f"the request is invalid: it has a {what} that HTTP/1.1 does not know")
            self._checked = end

    def _read_chunks(self, chunks: ChunkedBody, view: memoryview) -> Generator[RequestEvent, None, bool]:
        """Yield the parts of a chunked body. Return whether it is complete; the buffer then has what follows."""
        try:
            yield from chunks.feed(view)
        except InvalidBody as error:
            raise RequestRefused(400, f"the request's body is invalid: {error}") from None
        if chunks.trailers is None:
            return False
        self._buffer = bytearray(chunks.rest)
        self._chunks = None
        yield self._end(chunks.trailers)
        return True


def _plain_head(raw: bytes) -> RequestHead | None:
    """Return the head of a request without a body; None if h11 has to read it."""
    match = _PLAIN_HEAD.fullmatch(raw)
    if match is None or match[1] == b"CONNECT":
        return None
    headers = _PLAIN_HEADER.findall(match[3])
    names = [name.lower() for name, _ in headers]
    if names.count(b"host") != 1 or not _OF_BODY.isdisjoint(names):
        return None
    return RequestHead(match[1], match[2], b"1.1", headers)


def _head_of(request: h11.Request) -> RequestHead:
    """Return the head that h11 has parsed, without what it leaves open.

    Raises:
        RequestRefused: two programs could find different ends of the request, or different hosts.
    """
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version != b"1.1"):
        raise RequestRefused(400, "the request has a Transfer-Encoding, and a length or a version that denies it")
    if request.http_version not in (b"1.1", b"1.0"):
        raise RequestRefused(505, "the version of HTTP must be 1.1")
    if request.method == b"CONNECT":
        raise RequestRefused(501, "this is no proxy for other hosts")
    headers, target = request.headers.raw_items(), request.target
    if not target.startswith(b"/") and target != b"*":
        absolute = _AUTHORITY.fullmatch(target)
        if absolute is None:
            raise RequestRefused(400, "the request's target is neither a path nor a URL")
        host, target = absolute[1], absolute[2]  # RFC 9112, 3.2.2: the target's host counts
        headers = [(b"Host", host), *((name, value) for name, value in headers if name.lower() != b"host")]
        if not target.startswith(b"/"):
            target = b"/" + target
    head = RequestHead(request.method, target, request.http_version, headers)
    length = head.value(b"content-length") or b""
    if (upgrades := head.values(b"upgrade")) and b"upgrade" in head.values(b"connection"):
        if head.version == b"1.1" and len(upgrades) == 1 and length in _BODILESS and b"transfer-encoding" not in names:
            return head._replace(upgrade=upgrades[0])
        return without_upgrade(head)
    return head


def without_upgrade(head: RequestHead) -> RequestHead:
    """Return the head without a wish to change the protocol, which a server may ignore."""
    headers = [(name, value) for name, value in head.headers if name.lower() not in (b"upgrade", b"http2-settings")]
    return head._replace(headers=with_connection_options(headers, without=b"upgrade"), upgrade=b"")


def with_connection_options(headers: list[tuple[bytes, bytes]], *, without: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return headers whose Connection names only options that concern the connection.

    Others name headers to be removed on the way: a caller could have a proxy behind us remove what we have added.
    """
    kept = []
    for name, value in headers:
        if name.lower() == b"connection":
            options = [part.strip().lower() for part in value.split(b",")]
            value = b", ".join(each for each in options if each in _CONNECTION_OPTIONS and each != without)
            if not value:
                continue
        kept.append((name, value))
    return kept


_CONNECTION_OPTIONS: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})


def encode_head(head: RequestHead) -> bytes:
    """Return the bytes of a head."""
    lines = [b"%s %s HTTP/%s" % (head.method, head.target, head.version)]
    lines += [b"%s: %s" % header for header in head.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
