"""Requests of a connection: any split of their bytes gives the same events, and what is ambiguous is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_client.http.request_reader import (
    MAX_HEAD,
    RequestEnd,
    RequestHead,
    RequestReader,
    RequestRefused,
    encode_head,
)
from fastn_p2p_client.http.request_rewriter import RequestRewriter

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SIZED = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrail: yes\r\n\r\n"
)
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"


def summary(reader: RequestReader, *pieces: bytes) -> list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]]:
    """Return method, target, body and trailers of each complete request."""
    found, head, body = [], None, bytearray()
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, RequestHead):
                head, body = event, bytearray()
            elif isinstance(event, RequestEnd):
                assert head is not None
                found.append((head.method, head.target, bytes(body), event.trailers))
            else:
                body += event
    return found


@given(st.lists(st.integers(0, len(GET + SIZED + CHUNKED + GET)), max_size=12))
def test_any_split_of_pipelined_requests_gives_the_same(cuts: list[int]) -> None:
    stream = GET + SIZED + CHUNKED + GET
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert summary(RequestReader(), *pieces) == [
        (b"GET", b"/a", b"", []),
        (b"POST", b"/b", b"hello", []),
        (b"PUT", b"/c", b"abcde", [(b"Trail", b"yes")]),
        (b"GET", b"/a", b"", []),
    ]


SHAPES = [
    b"GET /%s HTTP/1.1\r\nHost: x\r\nAccept: */*, a b\r\nCookie: a=b; c=d\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost:x\r\nX-Empty:\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost:  x  \r\nX: \t1\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x:80\r\nA:b:c\r\nA: d\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /%s HTTP/1.0\r\nHost: x\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nAccept: x\r\n\r\n",
    b"get /%s HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT /%s HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://y/%s HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\nX: \xff\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
    b"GET /%s\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
]


def outcome_of(*pieces: bytes) -> object:
    """Return what is read of requests, or the status with which one is refused."""
    rewriter, sent = RequestRewriter(lambda head: head), b""
    for piece in pieces:
        sent += b"".join(rewriter.rewrite(piece))
    return sent, rewriter.refused.status if rewriter.refused else 0, rewriter.reader.requests


@pytest.mark.parametrize("shape", SHAPES)
def test_a_head_that_comes_at_once_or_again_is_read_as_h11_reads_it(shape: bytes) -> None:
    requests = [shape % name for name in (b"one", b"two?x=%41", b"three")]
    byte_by_byte = [bytes([byte]) for byte in b"".join(requests)]
    assert outcome_of(*requests) == outcome_of(*byte_by_byte) == outcome_of(b"".join(requests))


def test_headers_count_as_repeated_only_behind_a_request_of_their_own() -> None:
    headers = GET[GET.index(b"\r\n") :]
    rewriter = RequestRewriter(lambda head: head._replace(headers=[(b"Host", b"y")]))
    other = GET.replace(b"Host: x", b"Host: z").replace(b"GET", b"POST")
    for sent in (GET, GET, other[:9], other[9:], GET, SIZED[:-5] + GET[:5], GET, GET):
        rewriter.rewrite(sent)
    assert rewriter.refused is None
    assert rewriter.reader.requests == 7
    pieces = b"".join(rewriter.rewrite(b"GET /a\r\nX: y HTTP/1.1" + headers))
    assert (pieces, rewriter.refused is not None) == (b"", True)


REFUSED = {
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "a hidden coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a folded first line": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "a zero byte": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is no path": b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a large head": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * MAX_HEAD,
    "no HTTP": b"hello\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "a line that is no header": b"GET / HTTP/1.1\r\nHost: x\r\nhello\r\n",
    "a header with a zero byte, and no end": b"GET / HTTP/1.1\r\nA: b\0c\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a huge length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a hexadecimal length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n",
    "a length that is empty": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
}
REFUSED |= {
    name: CHUNKED.split(b"3;")[0] + body
    for name, body in {
        "a chunk without a size": b"x",
        "a chunk whose size is empty": b"\r\n",
        "a signed chunk": b"-",
        "a hexadecimal prefix": b"0x",
        "a huge chunk": b"1" * 17,
        "a long extension": b"1;" + b"a" * 5000,
        "a chunk longer than its size": b"3\r\nabcd",
        "a chunk that ends with bare LF": b"3\r\nabc\n",
        "a chunk that ends with bare CR": b"3\r\nabc\r3",
        "a size with bare LF": b"3\n",
        "a size with bare CR": b"3\ra",
        "an extension with bare LF": b"3;a\n",
        "an extension with a control character": b"3;a\x01",
        "a last size with bare LF": b"0\n",
        "an end with bare LF": b"0\r\n\n",
        "a trailer with bare LF": b"0\r\nA: b\n",
        "a trailer with bare CR": b"0\r\nA: b\rC: d\r\n",
        "a trailer that is no header": b"0\r\nhello\r\n",
        "a folded trailer": b"0\r\nA: b\r\n c\r\n",
        "a large trailer": b"0\r\nA: " + b"b" * MAX_HEAD,
        "many trailers": b"0\r\n" + b"A: b\r\n" * 10_000,
    }.items()
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("at_once", [True, False])
def test_ambiguous_requests_are_refused_with_their_last_byte(name: str, at_once: bool) -> None:
    data = REFUSED[name]
    step = len(data) if at_once else max(1, len(data) // 997)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    reader = RequestReader()
    assert summary(reader, GET) != []
    with pytest.raises(RequestRefused) as refused:
        summary(reader, *pieces)
    assert refused.value.status in (400, 431, 501, 505)


def test_a_target_with_a_host_is_split() -> None:
    [head, _] = RequestReader().feed(b"GET HTTP://Other:80?q HTTP/1.1\r\nhost: x\r\nA: b\r\n\r\n")
    assert isinstance(head, RequestHead)
    assert (head.target, head.headers) == (b"/?q", [(b"Host", b"Other:80"), (b"A", b"b")])


def test_a_body_that_has_a_length_is_not_copied() -> None:
    reader = RequestReader()
    list(reader.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"))
    data = b"0123456789"
    [part, end] = reader.feed(data)
    assert isinstance(part, memoryview)
    assert part.obj is data
    assert isinstance(end, RequestEnd)


def test_bytes_behind_an_upgrade_wait() -> None:
    reader = RequestReader()
    [head, _] = reader.feed(UPGRADE + b"frames")
    assert isinstance(head, RequestHead)
    assert head.upgrade == b"websocket"
    assert list(reader.feed(b" more")) == []
    assert reader.release() == b"frames more"


def test_requests_behind_an_upgrade_that_was_not_agreed_to_are_read() -> None:
    reader = RequestReader()
    assert len(list(reader.feed(UPGRADE + GET))) == 2
    assert [type(event) for event in reader.resume()] == [RequestHead, RequestEnd]


def test_only_so_much_waits_behind_an_upgrade() -> None:
    reader = RequestReader()
    list(reader.feed(UPGRADE))
    with pytest.raises(RequestRefused):
        list(reader.feed(b"x" * (MAX_HEAD + 1)))


@pytest.mark.parametrize(
    "wish",
    [
        b"GET / HTTP/1.0\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_an_upgrade_that_cannot_be_followed_is_removed(wish: bytes) -> None:
    head = next(RequestReader().feed(wish))
    assert isinstance(head, RequestHead)
    assert head.upgrade == b""
    assert b"pgrade" not in encode_head(head)
