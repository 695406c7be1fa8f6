"""A service behind Web, used through the local port of ``fastn-p2p open``: no daemon is in between."""

from __future__ import annotations

import asyncio
import os

import pytest

from fastn_p2p.protocols.web.loopback_server import FIRST_PORT, PORTS, local_name, port_of
from fastn_p2p.protocols.web.protocol import GetWebState, Web, WebState
from fastn_p2p_client.errors import Denied, InvalidConfig, PeerOffline, StreamReset
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.testing import serve
from tests.support.stub_daemon import short_path
from tests.support.web_services import ANN, echo_heads, opened, read_answer, read_head, service

OTHER = PublicKey("52ks2v4l7fnf6ros9g5rp4rj7sgosohjdtamhgjeusunamh2npt0")


def test_a_port_belongs_to_identity_peer_and_name() -> None:
    assert port_of(ANN.key, OTHER, "web") == port_of(ANN.key, OTHER, "web") == 29239
    assert len({port_of(ANN.key, OTHER, "web"), port_of(OTHER, ANN.key, "web"), port_of(ANN.key, OTHER, "two")}) == 3
    assert all(FIRST_PORT <= port_of(ANN.key, OTHER, str(number)) < FIRST_PORT + PORTS for number in range(1000))
    assert local_name("my_friend", "web") == "web.my-friend.localhost"


async def test_requests_carry_the_caller_and_connections_are_kept() -> None:
    with short_path() as path:
        async with service(echo_heads, f"{path}/s") as target, opened(target) as web:
            reader, writer = await web.connect()
            for _ in range(3):
                writer.write(web.head("GET", "Fastn-Peer: forged", "fastn_peer_name: forged"))
                _, body = await read_answer(reader)
                assert b"forged" not in body
                assert f"\r\nFastn-Peer: {ANN.key.id52}\r\nFastn-Peer-Name: ann\r\n".encode() in body
            assert web.sessions == 1
            state = await web.web.call(GetWebState(), returns=WebState)
            assert state == WebState(1, 256)
            writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(b"".join(web.head("GET", f"Number: {number}") for number in range(50)))
        for number in range(50):
            assert b"Number: %d\r\n" % number in (await read_answer(reader))[1]
        writer.close()


async def test_no_session_is_opened_before_a_request() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        _, writer = await web.connect()
        writer.write(web.head()[:20])
        assert (await web.exchange(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
        writer.close()
        assert web.sessions == 0


@pytest.mark.parametrize("coding", ["length", "chunks"])
async def test_bodies_pass_both_ways_at_once(coding: str) -> None:
    last = b"<end>" if coding == "length" else b"0\r\n\r\n"

    async def echo_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
            if data.endswith(last):
                return

    content = os.urandom(3_000_000) + b"<end>"
    async with service(echo_body) as target, opened(target) as web:
        reader, writer = await web.connect()
        if coding == "length":
            writer.write(web.head("POST", f"Content-Length: {len(content)}"))
            writer.write(content)
        else:
            writer.write(web.head("POST", "Transfer-Encoding: chunked"))
            for start in range(0, len(content), 100_000):
                part = content[start : start + 100_000]
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            writer.write(b"0\r\n\r\n")
        await read_head(reader)
        got = await reader.read()
        writer.close()
        assert (got if coding == "length" else unchunked(got)) == content


async def read_until_reset(session: Session) -> bytes:
    got = bytearray()
    try:
        while chunk := await session.read():
            got += chunk
    except StreamReset:
        session.reset()
        return bytes(got)
    raise AssertionError("the session was not reset")


def unchunked(data: bytes) -> bytes:
    body = bytearray()
    while True:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            return bytes(body)
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


async def test_a_client_reads_an_answer_that_comes_before_the_end_of_its_request() -> None:
    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with service(too_large) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head("POST", "Content-Length: 100000000") + bytes(1_000_000))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_a_client_waits_for_100_continue() -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect: 100-continue" in await read_head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + await reader.readexactly(5))

    async with service(patient) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head("POST", "Content-Length: 5", "Expect: 100-continue"))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hello")
        assert (await read_answer(reader))[1] == b"hello"
        writer.close()


async def test_a_client_may_end_its_direction_first() -> None:
    async def until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        assert await reader.read() == b""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    async with service(until_end) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head())
        writer.write_eof()
        assert (await reader.read()).endswith(b"late")
        writer.close()


# ── upgrades ─────────────────────────────────────────────────────────────────────────────────────

WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket")


async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agree to an upgrade unless the request says no, then echo; answer other requests with their head."""
    while True:
        head = await read_head(reader)
        if b"Upgrade:" in head and b"Refuse" not in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await reader.read(1 << 16):
                writer.write(data)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)


async def test_after_an_upgrade_bytes_pass_untouched() -> None:
    async with service(switching) as target, opened(target) as web:
        reader, writer = await web.connect()
        frames = b"GET / HTTP/1.1\r\nFastn-Peer: no header\r\n\r\n" + os.urandom(100_000)
        writer.write(web.head("GET", *WEBSOCKET) + frames)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(len(frames)) == frames
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_an_upgrade_on_a_kept_connection_gets_a_session_of_its_own() -> None:
    async with service(switching) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head())
        await read_answer(reader)
        writer.write(web.head("GET", *WEBSOCKET))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        writer.write(b"frame")
        assert await reader.readexactly(5) == b"frame"
        assert web.sessions == 2
        writer.close()


async def test_requests_behind_a_refused_upgrade_are_still_checked() -> None:
    async with service(switching) as target, opened(target) as web:
        reader, writer = await web.connect()
        forged = web.head("GET", "Fastn-Peer: forged")
        writer.write(web.head("GET", *WEBSOCKET, "Refuse: yes") + forged)
        await read_answer(reader)
        _, body = await read_answer(reader)
        assert b"forged" not in body
        assert b"Fastn-Peer: " in body
        writer.close()


async def test_an_answer_cannot_pass_for_agreement_to_a_later_upgrade() -> None:
    """A peer that speaks to Web without ``open`` asks for an upgrade behind another request."""
    async with service(switching) as target, opened(target) as web:
        session = await web.web.connect()
        await session.write(web.head() + web.head("GET", *WEBSOCKET) + web.head("GET", "Fastn-Peer: forged"))
        assert b"forged" not in await read_until_reset(session)


@pytest.mark.parametrize("wish", ["h2c", "TLS/1.0", "HTTP/2.0", "other"])
async def test_no_upgrade_to_a_protocol_that_was_not_allowed(wish: str) -> None:
    async with service(switching) as target, opened(target) as web:
        reader, writer = await web.connect()
        writer.write(web.head("GET", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {wish}", "HTTP2-Settings: AA"))
        _, body = await read_answer(reader)
        assert b"pgrade" not in body
        assert b"HTTP2" not in body
        writer.close()


@pytest.mark.parametrize("upgrade", ["h2c", "HTTP/2.0", "tls/1.0", "a b"])
async def test_an_upgrade_that_carries_requests_cannot_be_allowed(upgrade: str) -> None:
    with pytest.raises(InvalidConfig, match="upgrades"):
        async with serve(Web, {"target": "127.0.0.1:1", "upgrades": [upgrade]}):
            pass


# ── errors ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_invalid_request_is_answered() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        got = await web.exchange(web.head("POST", "Content-Length: 4", "Transfer-Encoding: chunked"))
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert web.sessions == 0
        reader, writer = await web.connect()
        writer.write(web.head())
        await read_answer(reader)
        writer.write(b"nonsense\n\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_peer_without_open_cannot_send_an_invalid_request() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        for sent in (b"", web.head()):
            async with await web.web.connect() as session:
                if sent:
                    await session.write(sent)
                    await session.read()
                await session.write(web.head("POST", "Content-Length: 4", "Transfer-Encoding: chunked"))
                assert b"".join([chunk async for chunk in session]).startswith(b"HTTP/1.1 400 ")


async def test_other_sites_are_refused_also_on_a_kept_connection() -> None:
    async with service(echo_heads) as target, opened(target) as web:
        assert (await web.exchange(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
        reader, writer = await web.connect()
        writer.write(web.head())
        await read_answer(reader)
        writer.write(web.head("POST", "Origin: http://evil.test"))
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
        writer.close()


async def test_other_users_are_refused() -> None:
    async with service(echo_heads) as target, opened(target, users=frozenset({4711})) as web:
        assert (await web.exchange(web.head())).startswith(b"HTTP/1.1 403 ")
        assert web.sessions == 0


async def test_a_service_that_is_not_running() -> None:
    async with service(echo_heads) as target:
        pass
    async with opened(target) as web:
        got = await web.exchange(web.head())
        assert got.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"Ask its owner to start it" in got
        assert target.encode() not in got
        got = await web.exchange(web.head("POST", "Content-Length: 3000000") + bytes(3_000_000))
        assert got.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("error", "status"),
    [(PeerOffline(peer="bob"), 502), (Denied(peer="bob", protocol="Web", instance="web"), 403)],
)
async def test_a_peer_that_cannot_be_used(error: Exception, status: int) -> None:
    async with opened("127.0.0.1:1") as web:
        web.error = error
        got = await web.exchange(web.head())
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert str(error).encode() in got
        assert len(web.messages) == 1
        head, _, body = (await web.exchange(web.head("HEAD"))).partition(b"\r\n\r\n")
        assert b"Content-Length" in head
        assert body == b""


async def test_too_many_connections() -> None:
    async with service(echo_heads) as target, opened(target, max_connections=1) as web:
        reader, writer = await web.connect()
        writer.write(web.head())
        await read_answer(reader)
        assert (await web.exchange(web.head())).startswith(b"HTTP/1.1 503 ")
        writer.close()
