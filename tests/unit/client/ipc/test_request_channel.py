"""``RequestChannel`` against libzmq, and its outcomes when connections end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zmq

from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, InternalError, Overloaded
from fastn_p2p_client.ipc.messages import ErrorReply, GetStatus, TicketText, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel, Response, check_reply, decode_answer
from fastn_p2p_client.ipc.transport.native.codec import GREETING, ready
from fastn_p2p_client.ipc.transport.native.codec import encode as encode_frames
from fastn_p2p_client.limits import MAX_HEADER

pytestmark = pytest.mark.both_loops

SIZES = [0, 1, 255, 256, 65_535, 65_536, 1_000_000, 16 * 1024 * 1024]


async def test_against_a_router_of_libzmq(tmp_path: Path) -> None:
    """Messages of every size in both directions, replies in groups, a heartbeat, and the end."""
    path = tmp_path / "r.sock"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.set(zmq.RCVTIMEO, 5000)
    router.set(zmq.HEARTBEAT_IVL, 20)
    router.set(zmq.HEARTBEAT_TIMEOUT, 2000)
    router.bind(f"ipc://{path}")

    try:
        pushed: asyncio.Queue[tuple[bytes, bytes, bytes]] = asyncio.Queue()
        down = asyncio.Event()
        link = RequestChannel(
            path, "libzmq", on_message=lambda *message: pushed.put_nowait(message), on_disconnect=down.set
        )
        link.open()
        route = b""
        for size in SIZES:
            payload = bytes(range(250)) * (size // 250) + bytes(size % 250)
            asked = asyncio.ensure_future(link.request(GetStatus(), payload, timeout=60))
            route, correlation, header, received = await asyncio.to_thread(router.recv_multipart)
            assert (header, received) == (encode(GetStatus()), payload)
            router.send_multipart([route, correlation, b"answer", received])
            assert await asked == Response(b"answer", payload)
        asked_many = [asyncio.ensure_future(link.request(GetStatus(), timeout=60)) for _ in range(10)]
        frames = []
        for number in range(10):
            _, correlation, _, _ = await asyncio.to_thread(router.recv_multipart)
            frames += [correlation, b"%d" % number, b""]
        router.send_multipart([route, *frames, b"no id of ours", b"pushed", b""])
        assert [(await each).header for each in asked_many] == [b"%d" % number for number in range(10)]
        async with asyncio.timeout(50):
            assert await pushed.get() == (b"no id of ours", b"pushed", b"")
        router.send_multipart([route, b"misfit"])
        asked = asyncio.ensure_future(link.request(GetStatus(), timeout=60))
        await asyncio.to_thread(router.recv_multipart)
        router.close(0)
        with pytest.raises(ConnectionLost):
            await asked
        async with asyncio.timeout(50):
            await down.wait()
        link.close()
    finally:
        router.close(0)
        context.term()


@pytest.mark.parametrize("size", [MAX_HEADER - 100, MAX_HEADER + 1, 3_000_000])
async def test_an_answer_may_be_longer_than_a_header(tmp_path: Path, size: int) -> None:
    """The status of a daemon with hundreds of identities is that long."""
    path = tmp_path / "m.sock"
    said = TicketText("x" * size)

    def answer(sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        mailbox.send(sender, correlation, encode(said))

    mailbox = Mailbox(path, answer)
    mailbox.open()
    link = RequestChannel(path, "mailbox")
    link.open()
    assert (
        decode_answer(msgspec.msgpack.Decoder(TicketText), (await link.request(GetStatus(), timeout=60)).header) == said
    )
    link.close()
    mailbox.close()


async def test_dealer_of_libzmq_against_a_mailbox(tmp_path: Path) -> None:
    """Messages of every size both ways, groups, a heartbeat, also several dealers with the same routing id."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def dealer() -> zmq.Socket[bytes]:
        made = context.socket(zmq.DEALER)
        made.set(zmq.RCVTIMEO, 5000)
        made.set(zmq.LINGER, 0)
        made.set(zmq.ROUTING_ID, b"the same")
        made.set(zmq.HEARTBEAT_IVL, 20)
        made.set(zmq.HEARTBEAT_TIMEOUT, 2000)
        made.connect(f"ipc://{tmp_path / 'm.sock'}")
        return made

    try:

        def echo(sender: Sender, *message: bytes) -> None:
            assert box.send(sender, *message)

        box = Mailbox(tmp_path / "m.sock", echo)
        box.open()
        dealers = [dealer() for _ in range(3)]
        for size in SIZES:
            for one in dealers:
                payload = bytes(range(250)) * (size // 250) + bytes(size % 250)
                one.send_multipart([b"id", b"header", payload])
                assert await asyncio.to_thread(one.recv_multipart) == [b"id", b"header", payload]
        group = [b"%d" % number for number in range(30)]
        dealers[0].send_multipart(group)
        answers = [await asyncio.to_thread(dealers[0].recv_multipart) for _ in range(10)]
        assert [frame for answer in answers for frame in answer] == group
        assert box.clients == 3
        for one in dealers:
            one.close()
        box.close()
    finally:
        context.destroy(0)


def test_importing_the_client_brings_no_libzmq() -> None:
    code = "import sys, fastn_p2p_client, fastn_p2p_client.ipc.request_channel; print('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


class FakeMailbox:
    """A listening socket; the test plays the peer of each connection."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(60)

    async def accept(self, *, hello: bool = True) -> socket.socket:
        accepted, _ = await asyncio.to_thread(self.listener.accept)
        accepted.settimeout(60)
        if hello:
            accepted.sendall(GREETING + ready("ROUTER"))
        return accepted


async def test_answers_that_came_before_the_end_count_and_the_rest_is_lost(tmp_path: Path) -> None:
    mailbox = FakeMailbox(tmp_path / "a.sock")
    ups: list[bool] = []
    link = RequestChannel(
        tmp_path / "a.sock", "a", on_connect=lambda: ups.append(True), on_disconnect=lambda: ups.append(False)
    )
    link.open()
    with mailbox.listener:
        accepted = await mailbox.accept()
        asked = [asyncio.ensure_future(link.request(GetStatus(), timeout=60)) for _ in range(2)]
        async with asyncio.timeout(50):
            await link.connected.wait()
        assert len(await asyncio.to_thread(accepted.recv, 1000)) > len(GREETING)
        await link.drain()
        accepted.sendall(encode_frames((1).to_bytes(8, "big"), b"answer", b"in time")[0])
        accepted.close()
        assert await asked[0] == Response(b"answer", b"in time")
        with pytest.raises(ConnectionLost):
            await asked[1]
        assert not link.connected.is_set()
        with pytest.raises(DaemonBusy):
            link.send(b"id", b"header")
        with pytest.raises(DaemonBusy):
            await link.drain()
        again = await mailbox.accept()  # by itself
        async with asyncio.timeout(50):
            await link.connected.wait()
        assert ups == [True, False, True]
        link.close()
        with pytest.raises(ConnectionLost):
            link.send(b"id", b"header")
        again.close()


async def test_a_silent_listener_is_tried_again(tmp_path: Path) -> None:
    """The process hangs, and its kernel goes on accepting connections."""

    mailbox = FakeMailbox(tmp_path / "a.sock")
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    with mailbox.listener:
        with await mailbox.accept(hello=False) as silent:
            assert await asyncio.to_thread(silent.recv, 1000) == GREETING + ready("DEALER")
            assert await asyncio.to_thread(silent.recv, 1000) == b""
        with await mailbox.accept():
            async with asyncio.timeout(50):
                await link.connected.wait()
            link.close()


async def test_too_much_for_a_peer_that_does_not_read_is_overloaded(tmp_path: Path) -> None:
    mailbox = FakeMailbox(tmp_path / "a.sock")
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    with mailbox.listener, await mailbox.accept():
        async with asyncio.timeout(50):
            await link.connected.wait()
        payload = memoryview(bytes(4 * 1024 * 1024))
        for _ in range(15):
            link.send(b"id", b"header", payload)
        link.send(b"id", b"header", payload)
        link.send(b"id", b"header", payload)
        with pytest.raises(Overloaded):
            link.send(b"id", b"header", payload)
        link.send(b"id", b"header", payload, credited=True)
        link.close()


async def test_messages_sent_right_before_close_arrive(tmp_path: Path) -> None:
    arrived: list[bytes] = []
    gone = asyncio.Event()
    box = Mailbox(tmp_path / "m.sock", lambda *message: arrived.append(message[1]), on_gone=lambda _: gone.set())
    box.open()
    link = RequestChannel(tmp_path / "m.sock", "m")
    link.open()
    async with asyncio.timeout(50):
        await link.connected.wait()
    for number in range(10):
        link.send(b"%d" % number, b"header", bytearray(b"payload"))
    link.close()
    async with asyncio.timeout(50):
        await gone.wait()
    assert arrived == [b"%d" % number for number in range(10)]
    box.close()


def test_a_reply_is_of_the_expected_type_or_an_error() -> None:
    assert check_reply(TicketText("x"), TicketText, "the daemon") == TicketText("x")
    with pytest.raises(DaemonBusy, match="vault"):
        check_reply(ErrorReply.of(DaemonBusy(actor="vault")), TicketText, "the daemon")
    with pytest.raises(InternalError, match="the daemon replied with GetStatus, not with TicketText"):
        check_reply(GetStatus(), TicketText, "the daemon")
