"""Headers that name the caller: a service gets ours, and nobody else's under any spelling."""

from __future__ import annotations

import pytest

from fastn_p2p_client.http.caller_headers import address_of, is_reserved, safe_trailers, with_caller
from fastn_p2p_client.http.request_reader import RequestHead, RequestReader, encode_head
from fastn_p2p_client.http.request_rewriter import RequestRewriter
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer import Peer

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
ANN = Peer(KEY, "ann", "direct", "192.0.2.7:4000")


def head_of(*lines: bytes) -> RequestHead:
    head = next(RequestReader().feed(b"\r\n".join((b"GET / HTTP/1.1", b"Host: x:1", *lines)) + b"\r\n\r\n"))
    assert isinstance(head, RequestHead)
    return head


def headers(head: RequestHead, name: bytes) -> list[bytes]:
    return [value for each, value in head.headers if each.lower() == name]


@pytest.mark.parametrize(
    "name",
    [
        b"Fastn-Peer", b"fastn-peer", b"FASTN-PEER-NAME", b"Fastn_Peer", b"fastn_peer_name", b"FastnPeer",
        b"fastn.peer", b"Fastn-Peer-Any", b"-Fastn-Peer", b"Fastn--Peer", b"X-Forwarded-For", b"Forwarded",
        b"Fastn-Request-Id", b"fastn_request_id", b"X-Real-IP", b"x_forwarded_host", b"Proxy", b"x-forwarded-user",
    ],
)  # fmt: skip
def test_no_spelling_passes(name: bytes) -> None:
    assert is_reserved(name)
    sent = with_caller(head_of(name + b": forged", name + b": forged"), ANN)
    assert b"forged" not in encode_head(sent)
    assert safe_trailers([(name, b"forged"), (b"Digest", b"1")]) == [(b"Digest", b"1")]


def test_the_caller_is_named() -> None:
    sent = with_caller(head_of(), ANN)
    assert headers(sent, b"fastn-peer") == [KEY.id52.encode()]
    assert headers(sent, b"fastn-peer-name") == [b"ann"]
    assert headers(sent, b"x-forwarded-for") == [b"192.0.2.7"]
    assert headers(sent, b"x-forwarded-host") == [b"x:1"] == headers(sent, b"host")
    assert headers(with_caller(head_of(), Peer(KEY, None)), b"fastn-peer-name") == []


def test_a_service_can_have_its_own_host() -> None:
    sent = with_caller(head_of(), ANN, host="app.test")
    assert headers(sent, b"host") == [b"app.test"]
    assert headers(sent, b"x-forwarded-host") == [b"x:1"]


@pytest.mark.parametrize(
    ("path", "address", "shown"),
    [
        ("direct", "[2001:db8::1]:5", b"2001:db8::1"),
        ("direct", "127.0.0.1:5", b"unknown"),
        ("direct", "[::1]:5", b"unknown"),
        ("relayed", "https://relay.test", b"unknown"),
        ("local", "", b"unknown"),
    ],
)
def test_a_peer_is_never_taken_for_this_machine(path: str, address: str, shown: bytes) -> None:
    assert address_of(Peer(KEY, None, path, address)) == shown


def test_nobody_can_have_our_headers_removed_behind_us() -> None:
    sent = with_caller(head_of(b"Connection: close, Fastn-Peer, Keep-Alive"), ANN)
    assert headers(sent, b"connection") == [b"close, keep-alive"]
    assert headers(with_caller(head_of(b"Connection: fastn-peer"), ANN), b"connection") == []


def test_trailers_are_filtered_on_the_way() -> None:
    rewriter = RequestRewriter(lambda head: with_caller(head, ANN))
    sent = rewriter.rewrite(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4;a=b\r\nbody\r\n0\r\nFastn_Peer: forged\r\nContent-Length: 7\r\nDigest: 1\r\n\r\n"
    )
    assert b"".join(sent).endswith(b"\r\n\r\n4\r\nbody\r\n0\r\nDigest: 1\r\n\r\n")
    assert rewriter.refused is None


def test_each_request_of_a_connection_has_an_id_of_its_own() -> None:
    """However its head is read: at once, again with the same headers, with a body, or in parts."""
    rewriter = RequestRewriter(lambda head: with_caller(head, ANN), "order-4711/2")
    get = b"GET / HTTP/1.1\r\nHost: x\r\nFastn-Request-Id: forged\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
    sent = b"".join(b"".join(rewriter.rewrite(data)) for data in (get, get, post, get[:9], get[9:] + get + get))
    reader = RequestReader()
    heads = [each for each in reader.feed(sent) if isinstance(each, RequestHead)]
    ids = [headers(head, b"fastn-request-id") for head in heads]
    assert ids == [[b"order-4711/2/%d" % number] for number in range(1, 7)]
