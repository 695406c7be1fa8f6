"""Mailbox and request channel over real sockets: accepted senders, and how requests end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
import uvloop
import zmq

from fastn_p2p_actors.runtime.connection_limits import ConnectionLimits
from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded, Overloaded, P2PError, PayloadTooLarge
from fastn_p2p_client.ipc.messages import Ack, Cancel, ErrorReply, GetStatus, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.ipc.transport.native.codec import GREETING, ready
from fastn_p2p_client.ipc.transport.native.codec import encode as encode_frames
from fastn_p2p_client.limits import MAX_GROUP, MAX_PAYLOAD, SEND_QUEUE_BYTES
from tests.support.daemons import eventually

ECHO_SERVER = """
import asyncio, sys
from pathlib import Path
from fastn_p2p_actors.runtime.connection_limits import ConnectionLimits
from fastn_p2p_actors.runtime.mailbox import Mailbox
async def main():
    box = Mailbox(Path(sys.argv[1]), lambda sender, id, header, payload: box.send(sender, id, header, payload))
    box.open()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

POOR_SERVER = """
import logging, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
logging.basicConfig(level=logging.WARNING)
""" + ECHO_SERVER.replace("asyncio.run(", "__import__('uvloop').run(").replace(
    "payload))", "payload), limits=ConnectionLimits(999, 999))"
)


class Recorder:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[Sender, bytes, bytes, bytes]] = asyncio.Queue()
        self.gone: asyncio.Queue[Sender] = asyncio.Queue()

    def on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.messages.put_nowait((sender, correlation, header, payload))

    async def next(self) -> tuple[Sender, bytes, bytes, bytes]:
        async with asyncio.timeout(50):
            return await self.messages.get()


async def test_request_gets_its_reply_and_the_kernel_identifies_the_sender(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    asked = asyncio.ensure_future(link.request(GetStatus(), b"payload", timeout=60))
    sender, correlation, header, payload = await seen.next()
    assert (sender.uid, sender.pid) == (os.getuid(), os.getpid())
    assert (header, payload) == (encode(GetStatus()), b"payload")
    assert box.send(sender, correlation, encode(Ack()), b"answer")
    assert await asked == (encode(Ack()), b"answer")
    link.close()
    async with asyncio.timeout(50):
        assert await seen.gone.get() is sender
    assert not box.send(sender, correlation, encode(Ack()))
    box.close()
    assert not (tmp_path / "a.sock").exists()


async def test_socket_file_is_private(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "a.sock", lambda *_: None)
    box.open()
    assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o600
    box.close()


async def test_deadline_ends_the_request_and_sends_cancel(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    with pytest.raises(DeadlineExceeded) as caught:
        await link.request(GetStatus(), timeout=0.3)
    assert caught.value.seconds <= 0.3
    assert (await seen.next())[2] == encode(GetStatus())
    assert (await seen.next())[2] == encode(Cancel())
    assert link.in_flight == 0
    link.close()
    box.close()


async def test_cancelled_request_sends_cancel(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    asked = asyncio.ensure_future(link.request(GetStatus(), timeout=60))
    first = await seen.next()
    asked.cancel()
    assert (await seen.next())[1:3] == (first[1], encode(Cancel()))
    link.close()
    box.close()


async def test_without_a_mailbox_the_error_names_the_missing_actor(tmp_path: Path) -> None:
    link = RequestChannel(tmp_path / "none.sock", "gateway")
    link.open()
    with pytest.raises(DaemonBusy, match="gateway"):
        await link.request(GetStatus(), timeout=0.2)
    link.close()


async def test_payload_above_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    box = Mailbox(tmp_path / "a.sock", lambda *_: None)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    with pytest.raises(PayloadTooLarge):
        await link.request(GetStatus(), bytes(MAX_PAYLOAD + 1), timeout=60)
    link.close()
    box.close()


async def test_end_of_the_process_fails_requests_and_its_successor_serves(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", ECHO_SERVER, str(tmp_path / "a.sock")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    process = start()
    link = RequestChannel(tmp_path / "a.sock", "echo")
    link.open()
    try:
        assert (await link.request(GetStatus(), b"1", timeout=60)).payload == b"1"
        process.send_signal(signal.SIGSTOP)
        asked = [asyncio.ensure_future(link.request(GetStatus(), timeout=20)) for _ in range(5)]
        await asyncio.sleep(0)
        process.kill()
        process.communicate()
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(result, ConnectionLost)
        process = start()
        assert (await link.request(GetStatus(), b"2", timeout=60)).payload == b"2"
    finally:
        link.close()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("frames", [[b""], [b"1"], [b"1", b"2"], [b"1", b"2", b"3", b"4"], [b"i" * 17, b"", b""]])
async def test_messages_of_another_shape_are_not_handed_over(tmp_path: Path, frames: list[bytes]) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message)
    box.open()
    raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    raw.connect(f"ipc://{tmp_path / 'a.sock'}")
    raw.send_multipart(frames)
    raw.send_multipart([b"id", b"header", b"payload"])
    assert (await seen.next())[1:] == (b"id", b"header", b"payload")
    assert box.dropped == 1
    raw.close(0)
    box.close()


async def test_a_group_is_handed_over_message_by_message_and_its_size_is_limited(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message)
    box.open()
    raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    raw.connect(f"ipc://{tmp_path / 'a.sock'}")
    raw.send_multipart([b"1", b"first", b"", b"2", b"second", b"payload"])
    assert (await seen.next())[1:] == (b"1", b"first", b"")
    assert (await seen.next())[1:] == (b"2", b"second", b"payload")
    raw.send_multipart([b"i", b"h", b"p"] * (MAX_GROUP + 1))
    raw.send_multipart([b"3", b"third", b""])
    assert (await seen.next())[1:] == (b"3", b"third", b"")
    assert box.dropped == 1
    raw.close(0)
    box.close()


async def test_a_burst_arrives_whole_and_in_order_though_the_peer_is_slow_to_read(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message)
    box.open()
    got: list[int] = []
    done = asyncio.Event()

    def on_message(_: bytes, header: bytes, payload: bytes) -> None:
        got.append(int(header))
        assert payload == header * 1000
        if len(got) == 15_000:
            done.set()

    link = RequestChannel(tmp_path / "a.sock", "a", on_message=on_message)
    link.open()
    asked = asyncio.ensure_future(link.request(GetStatus(), timeout=60))
    sender = (await seen.next())[0]
    for number in range(15_000):
        header = b"%d" % number
        assert box.send(sender, b"push", header, header * 1000)
    async with asyncio.timeout(30):
        await done.wait()
    assert got == list(range(15_000))
    asked.cancel()
    link.close()
    box.close()


def connect(path: Path) -> socket.socket:
    """Connect without any ZeroMQ library."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.settimeout(60)
    stranger.connect(str(path))
    return stranger


async def assert_answers(box: Mailbox, seen: Recorder, link: RequestChannel) -> None:
    asked = asyncio.ensure_future(link.request(GetStatus(), timeout=60))
    sender, correlation, _, _ = await seen.next()
    assert box.send(sender, correlation, encode(Ack()))
    assert (await asked).header == encode(Ack())


async def test_garbage_does_not_affect_other_senders(tmp_path: Path) -> None:
    """Noise, short greetings and announced frames that do not come, all at the same time."""
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    await assert_answers(box, seen, link)
    opening = GREETING + ready("DEALER")
    said = [os.urandom(200), b"", GREETING[:20], GREETING, opening + b"\x02" + b"\xff" * 8, opening + b"\x09\x00"]
    strangers = [connect(tmp_path / "a.sock") for _ in said]
    for stranger, data in zip(strangers, said, strict=True):
        stranger.sendall(data)
    await assert_answers(box, seen, link)
    for _ in said:
        async with asyncio.timeout(50):
            await seen.gone.get()
    assert box.clients == 1
    for stranger in strangers:
        stranger.close()
    await assert_answers(box, seen, link)
    link.close()
    box.close()


async def test_refused_connection_gets_the_reason_and_a_free_place_later(tmp_path: Path) -> None:
    async def asked(link: RequestChannel) -> P2PError | None:
        """Return the reason of the error reply."""
        try:
            answer = await link.request(GetStatus(), timeout=60)
        except (ConnectionLost, DaemonBusy) as error:
            return error
        return (
            None if answer.header == encode(Ack()) else msgspec.msgpack.decode(answer.header, type=ErrorReply).error()
        )

    def answer(sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        box.send(sender, correlation, encode(Ack()))

    box = Mailbox(tmp_path / "a.sock", answer, limits=ConnectionLimits(per_program=3))
    box.open()
    links = [RequestChannel(tmp_path / "a.sock", "a") for _ in range(5)]
    for link in links[:3]:
        link.open()
        assert await asked(link) is None
    for link in links[3:]:
        link.open()
        for _ in range(2):
            overload = await asked(link)
            assert isinstance(overload, Overloaded)
            assert f"process {os.getpid()} (" in str(overload)
            assert "which holds 3" in str(overload)
    assert box.clients == 3
    for link in links[:3]:
        assert await asked(link) is None
    for link in links[:2]:
        link.close()
    async with asyncio.timeout(50):
        for link in links[3:]:
            while await asked(link) is not None:
                await link.connected.wait()
    assert box.clients == 3
    for link in links[2:]:
        link.close()
    box.close()


async def test_refused_connections_are_kept_open_up_to_a_limit(tmp_path: Path) -> None:
    """A program that is refused and disconnected would connect again at once, endlessly."""

    def is_open(each: socket.socket) -> bool:
        each.setblocking(False)
        try:
            while each.recv(1000):
                pass
        except BlockingIOError:
            return True
        except ConnectionResetError:
            pass
        return False

    limits = ConnectionLimits(per_program=1)
    limits.refused = 5
    box = Mailbox(tmp_path / "a.sock", lambda *_: None, limits=limits)
    box.open()
    crowd: list[socket.socket] = []
    try:
        for _ in range(20):
            crowd.append(connect(tmp_path / "a.sock"))
            crowd[-1].send(GREETING + ready("DEALER"))
            await asyncio.sleep(0)
        await asyncio.to_thread(eventually, lambda: sum(map(is_open, crowd)) == 6, "one and five are left", 5)
        assert box.clients == 1
    finally:
        for each in crowd:
            each.close()
        box.close()


def test_without_a_descriptor_to_spare_it_goes_on_and_does_not_spin(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", POOR_SERVER, str(tmp_path / "a.sock")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    async def scenario() -> None:
        link = RequestChannel(tmp_path / "a.sock", "echo")
        link.open()
        assert (await link.request(GetStatus(), b"before", timeout=60)).payload == b"before"
        crowd = [connect(tmp_path / "a.sock") for _ in range(100)]
        assert process.stderr is not None
        assert "Too many open files" in await asyncio.to_thread(process.stderr.readline)
        began = psutil.Process(process.pid).cpu_times()
        assert (await link.request(GetStatus(), b"meanwhile", timeout=60)).payload == b"meanwhile"
        late = RequestChannel(tmp_path / "a.sock", "echo")
        late.open()  # those before it are dropped bit by bit, as they say nothing
        assert (await late.request(GetStatus(), b"after", timeout=20)).payload == b"after"
        assert sum(psutil.Process(process.pid).cpu_times()[:2]) - sum(began[:2]) < 0.3
        for stranger in crowd:
            stranger.close()
        late.close()
        link.close()

    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        uvloop.run(scenario())
    finally:
        process.kill()
        _, told = process.communicate()
    assert told == ""  # again


async def test_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "a.sock"))
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    await assert_answers(box, seen, link)
    link.close()
    box.close()


async def test_last_messages_of_a_program_are_read_before_its_end(tmp_path: Path) -> None:
    told: list[str] = []
    gone = asyncio.Event()

    def on_gone(sender: Sender) -> None:
        told.append(f"gone: {sender.gone}")
        gone.set()

    box = Mailbox(tmp_path / "a.sock", lambda *message: told.append(message[2].decode()), on_gone=on_gone)
    box.open()
    with connect(tmp_path / "a.sock") as program:
        program.sendall(GREETING + ready("DEALER") + encode_frames(b"1", b"last", b"")[0])
        program.sendall(encode_frames(b"2", b"words", b"")[0])
    async with asyncio.timeout(50):
        await gone.wait()
    assert told == ["last", "words", "gone: True"]
    box.close()


async def test_sender_that_does_not_read_does_not_delay_others(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait)
    box.open()
    program = connect(tmp_path / "a.sock")
    program.sendall(GREETING + ready("DEALER") + encode_frames(b"1", b"h", b"")[0])
    sender = (await seen.next())[0]
    assert sender.backlog == 0
    payload = bytes(1024 * 1024)
    while box.send(sender, b"push", b"h", payload):
        pass
    assert sender.backlog > SEND_QUEUE_BYTES
    before = sender.backlog
    box.answer(sender, b"late", encode(Ack()), payload)
    assert 0 < sender.backlog - before < 1000, "a short refusal instead of the answer"
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    await assert_answers(box, seen, link)
    program.close()
    async with asyncio.timeout(50):
        assert await seen.gone.get() is sender
    assert sender.backlog == 0
    assert not box.send(sender, b"push", b"h")
    link.close()
    box.close()


async def test_another_user_is_not_listened_to(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, uid=os.getuid() + 1)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    with pytest.raises(DaemonBusy):
        await link.request(GetStatus(), timeout=0.1)
    with connect(tmp_path / "a.sock") as stranger:
        assert await asyncio.to_thread(stranger.recv, 100) == b""
    assert seen.messages.empty()
    assert box.dropped > 1
    assert box.clients == 0
    link.close()
    box.close()


HELD_LIMIT = 8 * 1024 * 1024


async def half_a_message(
    path: Path, correlation: bytes, size: int, whole: int = MAX_PAYLOAD
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send ``size`` bytes of a payload of ``whole`` bytes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(GREETING + ready("DEALER"))
    writer.write(b"\x01" + bytes([len(correlation)]) + correlation + b"\x01\x01h")
    writer.write(b"\x02" + whole.to_bytes(8, "big") + bytes(size))
    with contextlib.suppress(OSError):
        await writer.drain()
    return reader, writer


async def test_incomplete_messages_are_bounded_and_the_largest_is_ended(tmp_path: Path) -> None:
    """The largest gets an error reply. Smaller connections of the same process go on."""
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait, max_held=HELD_LIMIT)
    box.open()
    mib = 1024 * 1024
    small = [await half_a_message(tmp_path / "a.sock", b"s", mib, mib + mib // 2) for _ in range(4)]
    # All of it is written before the limit is noticed: a writer that is cut off would lose the reason.
    large, writer = await half_a_message(tmp_path / "a.sock", b"large", 4 * mib + 32 * 1024)
    async with asyncio.timeout(50):
        said = await large.read()
    assert b"\x01\x05large" in said
    assert b"overloaded" in said
    assert f"process {os.getpid()} (".encode() in said
    assert box.clients == 4
    assert seen.gone.qsize() == 1
    small[0][1].write(bytes(mib // 2))
    await small[0][1].drain()
    assert len((await seen.next())[3]) == mib + mib // 2
    for _, each in (*small, (large, writer)):
        each.close()
    box.close()


async def test_frames_without_an_end_count_as_well(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait, max_held=HELD_LIMIT)
    box.open()
    writers: list[asyncio.StreamWriter] = []
    for _ in range(4):
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "a.sock"))
        writers.append(writer)
        writer.write(GREETING + ready("DEALER"))
        writer.write((b"\x03" + (60_000).to_bytes(8, "big") + bytes(60_000)) * 50)  # 3 MB, each frame with MORE
        await writer.drain()
    async with asyncio.timeout(50):
        await seen.gone.get()
    assert box.clients >= 2
    for writer in writers:
        writer.close()
    box.close()


async def test_sender_that_never_reads_is_ended_and_others_get_replies(tmp_path: Path) -> None:
    seen = Recorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait, max_held=HELD_LIMIT)
    box.open()
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "a.sock"), limit=1)
    writer.write(GREETING + ready("DEALER") + b"".join(filter(None, map(bytes, encode_frames(b"1", b"h", b"")[:1]))))
    deaf, correlation, _, _ = await seen.next()
    for _ in range(10):
        box.send(deaf, correlation, encode(Ack()), bytes(1024 * 1024))
    async with asyncio.timeout(50):
        assert await seen.gone.get() is deaf
    assert not box.send(deaf, correlation, encode(Ack()))
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    await assert_answers(box, seen, link)
    link.close()
    writer.close()
    box.close()
