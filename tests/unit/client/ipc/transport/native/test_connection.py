"""``ZmtpConnection`` on both event loops: messages arrive in order and once, and its end is reported."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from fastn_p2p_client.errors import ConnectionLost
from fastn_p2p_client.ipc.transport.native.codec import GREETING, ZERO_COPY_MIN, Payload, SocketType, encode, ready
from fastn_p2p_client.ipc.transport.native.connection import ZmtpConnection
from fastn_p2p_client.ipc.transport.native.decoder import ZmtpDecoder
from fastn_p2p_client.ipc.transport.native.read_buffer import release_read_buffers
from fastn_p2p_client.limits import HANDSHAKE_IVL_MS, SEND_QUEUE, SEND_QUEUE_BYTES

pytestmark = pytest.mark.both_loops
Message: TypeAlias = tuple[bytes, bytes, bytes]


class End:
    """End of a connection."""

    def __init__(self, sock: socket.socket, kind: SocketType) -> None:
        sock.setblocking(False)
        self.up = asyncio.Event()
        self.ended = asyncio.Event()
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.invalid: list[list[bytes]] = []
        self.connection = ZmtpConnection(
            sock,
            kind,
            kind,
            on_ready=self.up.set,
            on_message=lambda *message: self.messages.put_nowait(message),
            on_end=self.ended.set,
            on_invalid=lambda frames, _: self.invalid.append(frames),
        )
        self.connection.start()

    async def take(self, count: int) -> list[Message]:
        async with asyncio.timeout(60):
            return [await self.messages.get() for _ in range(count)]

    async def end(self) -> None:
        async with asyncio.timeout(50):
            await self.ended.wait()


async def pair() -> tuple[End, End]:
    ours, theirs = socket.socketpair()
    ends = End(ours, "ROUTER"), End(theirs, "DEALER")
    async with asyncio.timeout(50):
        for end in ends:
            await end.up.wait()
    return ends


async def against_a_socket() -> tuple[End, socket.socket]:
    """A connection whose peer is a blocking socket of the test."""
    ours, theirs = socket.socketpair()
    end = End(ours, "ROUTER")
    theirs.settimeout(60)
    theirs.sendall(GREETING + ready("DEALER"))
    async with asyncio.timeout(50):
        await end.up.wait()
    assert theirs.recv(1000) == GREETING + ready("ROUTER")
    return end, theirs


def wire(*message: bytes) -> bytes:
    head, large = encode(*message)
    return head + (large or b"")


async def test_messages_of_one_and_of_many_iterations_arrive_in_order() -> None:
    one, two = await pair()
    sent = []
    for number in range(2000):
        message = (
            b"%d" % number,
            b"header",
            b"p" * (ZERO_COPY_MIN + number if number % 100 == 0 else number % 300),
        )
        assert one.connection.send(*message)
        sent.append(message)
        if number % 7 == 0:
            await asyncio.sleep(0)
    assert await two.take(len(sent)) == sent
    one.connection.close()
    await two.end()


async def test_the_read_buffer_is_released_and_used_again() -> None:
    one, two = await pair()
    message = (b"id", b"header", b"p" * 1000)
    for _ in range(2):
        assert one.connection.send(*message)
        assert await two.take(1) == [message]
        buffer = two.connection.get_buffer(-1)
        assert any(buffer)
        release_read_buffers()
        assert not any(buffer)
    one.connection.close()
    await two.end()


async def test_one_message_leaves_at_once_and_many_leave_together() -> None:
    end, other = await against_a_socket()
    other.setblocking(False)

    def send(count: int) -> None:
        for _ in range(count):
            assert end.connection.send(b"id", b"h", b"")

    def arrived() -> int:
        """Since this was asked last."""
        try:
            return len(other.recv(10_000)) // len(wire(b"id", b"h", b""))
        except BlockingIOError:
            return 0

    async def after_the_turn() -> int:
        for _ in range(3):
            await asyncio.sleep(0)
        return arrived()

    with other:
        for _ in range(3):
            send(1)
            assert (arrived(), await after_the_turn()) == (1, 0)
        send(5)
        assert (arrived(), await after_the_turn()) == (1, 4), "nobody knows yet that they are many"
        for count in (5, 2, 1):
            send(count)
            assert (arrived(), await after_the_turn()) == (0, count), "now it is known"
        send(1)
        assert (arrived(), await after_the_turn()) == (1, 0), "and that they are not any more"
    await end.end()


@pytest.mark.parametrize("size", [0, 100, ZERO_COPY_MIN, 5_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_payloads_of_every_kind(size: int, kind: Callable[[bytes], Payload]) -> None:
    one, two = await pair()
    payload = bytes(range(250)) * (size // 250) + bytes(size % 250)
    assert one.connection.send(b"1", b"h", kind(payload))
    assert one.connection.send(b"2", b"h")
    assert await two.take(2) == [(b"1", b"h", payload), (b"2", b"h", b"")]
    for end in (one, two):
        end.connection.close()


async def test_both_ways_at_once() -> None:
    one, two = await pair()
    payload = bytes(3_000_000)
    for number in range(5):
        for end in (one, two):
            assert end.connection.send(b"%d" % number, b"h", payload)
    for end in (one, two):
        assert [message[0] for message in await end.take(5)] == [b"%d" % number for number in range(5)]
    one.connection.close()
    await two.end()


async def test_close_still_delivers_sent_messages() -> None:
    one, two = await pair()
    for number in range(100):
        assert one.connection.send(b"%d" % number, b"last", b"words")
    one.connection.close()
    assert not one.connection.send(b"x", b"", b"")
    await two.end()
    assert [message[0] for message in await two.take(100)] == [b"%d" % number for number in range(100)]
    assert not one.ended.is_set()  # who closes it knows


async def test_close_before_it_has_begun() -> None:
    ours, theirs = socket.socketpair()
    end = End(ours, "DEALER")
    end.connection.close()
    theirs.settimeout(0)
    with theirs:
        async with asyncio.timeout(50):
            assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b""


async def test_unsent_bytes_are_counted_and_limited() -> None:
    end, other = await against_a_socket()
    with other:
        assert end.connection.unsent_bytes == 0
        payload = bytes(1024 * 1024)
        sent = 0
        while end.connection.send(b"%d" % sent, b"h", payload):
            sent += 1
        assert SEND_QUEUE_BYTES < end.connection.unsent_bytes <= SEND_QUEUE_BYTES + 2 * len(payload)
        assert end.connection.send(b"credited", b"h", b"", flow_controlled=True)
        before = end.connection.unsent_bytes
        while end.connection.unsent_bytes >= before:
            assert await asyncio.to_thread(other.recv, 1_000_000)
    await end.end()
    assert end.connection.unsent_bytes == 0
    assert not end.connection.send(b"x", b"", b"")


async def test_session_data_neither_rejects_nor_delays_requests() -> None:
    """Other messages overtake flow-controlled ones of any amount, and every message stays whole."""

    end, other = await against_a_socket()
    with other:
        chunk = bytes(ZERO_COPY_MIN + 1000)
        chunks = 2 * SEND_QUEUE_BYTES // len(chunk)
        for number in range(chunks):
            assert end.connection.send(b"c%d" % number, b"chunk", chunk, flow_controlled=True)
        for number in range(SEND_QUEUE):
            assert end.connection.send(b"s%d" % number, b"chunk", b"small", flow_controlled=True)
        assert end.connection.unsent_bytes > SEND_QUEUE_BYTES
        calls = [(b"r%d" % number, b"request", bytes(ZERO_COPY_MIN * (number % 2))) for number in range(100)]
        for call in calls:
            assert end.connection.send(*call)
        theirs: list[Message] = []
        decoder = ZmtpDecoder("DEALER", bool, lambda *each: theirs.append(each), lambda *_: None, lambda _: None)
        decoder.feed(GREETING + ready("ROUTER"))
        while len(theirs) < chunks + SEND_QUEUE + len(calls):
            decoder.feed(await asyncio.to_thread(other.recv, 1_000_000))
        order = [message[0][:1] for message in theirs]
        last_call = len(order) - 1 - order[::-1].index(b"r")
        assert order[:last_call].count(b"c") < chunks // 4, "requests wait for what sessions have said"
        assert [each for each in theirs if each[1] == b"request"] == calls
        numbers = [int(each[0][1:]) for each in theirs if each[0][:1] == b"c"]
        assert numbers == list(range(chunks))
        assert all(each[2] == chunk for each in theirs if each[0][:1] == b"c")
    await end.end()


async def test_number_of_messages_that_wait_is_limited() -> None:
    """The limit also holds within one iteration of the event loop."""

    end, other = await against_a_socket()
    with other:
        sent = 0
        while end.connection.send(b"id", b"h" * 1000):
            sent += 1
        assert SEND_QUEUE <= sent <= 2 * SEND_QUEUE
        await asyncio.to_thread(read_messages, other, sent)
        async with asyncio.timeout(50):
            await end.connection.drain()
        assert end.connection.send(b"id", b"h")
    await end.end()


def read_messages(sock: socket.socket, count: int, size: int = len(wire(b"id", b"h" * 1000, b""))) -> None:
    left = count * size
    while left:
        left -= len(sock.recv(min(left, 1_000_000)))


async def test_drain_returns_once_the_kernel_has_taken_everything() -> None:
    end, other = await against_a_socket()
    with other:
        await end.connection.drain()
        assert end.connection.send(b"id", b"h", bytes(5_000_000))
        flushing = [asyncio.ensure_future(end.connection.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in flushing)
        await asyncio.to_thread(read_messages, other, 1, len(wire(b"id", b"h", bytes(5_000_000))))
        async with asyncio.timeout(50):
            await asyncio.gather(*flushing)
        assert end.connection.unsent_bytes == 0
        assert end.connection.send(b"id", b"h", bytes(5_000_000))
        lost = asyncio.ensure_future(end.connection.drain())
        await asyncio.sleep(0)
    with pytest.raises(ConnectionLost):
        await lost
    await end.end()


async def test_last_words_count_also_when_they_cannot_be_answered() -> None:
    """The peer has written and gone; a send before its messages are read fails first."""

    end, other = await against_a_socket()
    count = 1000  # more than one burst
    other.sendall(b"".join(wire(b"%d" % number, b"last", b"words") for number in range(count)))
    other.close()
    end.connection.send(b"too late", b"", b"")
    await end.end()
    assert end.messages.qsize() == count
    assert [message[0] for message in await end.take(count)] == [b"%d" % number for number in range(count)]


async def test_last_messages_of_a_peer_that_leaves_replies_unread_arrive() -> None:
    end, other = await against_a_socket()
    assert end.connection.send(b"unread", b"", b"")
    await asyncio.sleep(0)
    other.sendall(wire(b"last", b"words", b""))
    other.close()
    await end.end()
    assert await end.take(1) == [(b"last", b"words", b"")]


async def test_a_flood_leaves_others_their_turn() -> None:
    end, other = await against_a_socket()
    count = 3000
    with other:
        other.sendall(b"".join(wire(b"id", b"h", b"") for _ in range(count)))
        most = seen = 0
        while seen < count:
            await asyncio.sleep(0)
            most, seen = max(most, end.messages.qsize() - seen), end.messages.qsize()
        assert most <= 256
    await end.end()


async def test_ping_is_answered() -> None:
    end, other = await against_a_socket()
    with other:
        other.sendall(b"\x04\x0a\x04PING\x00\x64abc")
        assert await asyncio.to_thread(other.recv, 100) == b"\x04\x08\x04PONGabc"
    await end.end()


@pytest.mark.parametrize("data", [b"", b"\xff", GREETING, GREETING + ready("DEALER")[:-1]], ids=len)
async def test_a_peer_without_a_handshake_is_dropped(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(60)
    with theirs:
        theirs.sendall(data)
        loop = asyncio.get_running_loop()
        began = loop.time()
        end = End(ours, "ROUTER")
        await end.end()
        assert loop.time() - began > HANDSHAKE_IVL_MS / 1000 - 0.05
        assert theirs.recv(1000) == GREETING + ready("ROUTER")
        assert theirs.recv(1000) == b""
        assert not end.up.is_set()


async def test_garbage_ends_it_at_once() -> None:
    end, other = await against_a_socket()
    with other:
        other.sendall(wire(b"1", b"first", b"") + b"\x09\x00" + wire(b"2", b"second", b""))
        await end.end()
        assert end.messages.qsize() == 1
        assert other.recv(1000) == b""


def test_a_transport_whose_loop_was_closed_frees_its_socket_without_a_warning() -> None:
    """Also if the garbage collector finalizes it before the connection is closed."""
    loop = asyncio.new_event_loop()
    end, theirs = loop.run_until_complete(against_a_socket())
    loop.close()
    transport: Any = end.connection._transport
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type(transport).__del__(transport)
        assert theirs.recv(1) == b""
        end.connection.close()
        del transport, end
        gc.collect()
    theirs.close()
