"""Mailbox and request channel over real sockets: accepted senders, and how requests end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded, PayloadTooLarge
from fastn_p2p_client.ipc.messages import Ack, Cancel, GetStatus, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel, Response
from fastn_p2p_client.ipc.transport.native.codec import GREETING, ready
from fastn_p2p_client.ipc.transport.native.codec import encode as encode_frames
from fastn_p2p_client.limits import MAX_GROUP, MAX_PAYLOAD, SEND_QUEUE_BYTES
from tests.support.mailboxes import ECHO_SERVER, MessageRecorder, assert_answers, connect
from tests.support.processes import send_signal


async def test_request_gets_its_reply_and_the_kernel_identifies_the_sender(tmp_path: Path) -> None:
    seen = MessageRecorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    asked = asyncio.ensure_future(link.request(GetStatus(), b"payload", timeout=60))
    sender, correlation, header, payload = await seen.next()
    assert (sender.uid, sender.pid) == (os.getuid(), os.getpid())
    assert (header, payload) == (encode(GetStatus()), b"payload")
    assert box.send(sender, correlation, encode(Ack()), b"answer")
    assert await asked == Response(encode(Ack()), b"answer")
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
    seen = MessageRecorder()
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
    seen = MessageRecorder()
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
        send_signal(process.pid, signal.SIGSTOP)
        asked = [asyncio.ensure_future(link.request(GetStatus(), timeout=60)) for _ in range(5)]
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
    seen = MessageRecorder()
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
    seen = MessageRecorder()
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
    seen = MessageRecorder()
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


async def test_garbage_does_not_affect_other_senders(tmp_path: Path) -> None:
    """Noise, short greetings and announced frames that do not come, all at the same time."""
    seen = MessageRecorder()
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


async def test_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "a.sock"))
    seen = MessageRecorder()
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
    seen = MessageRecorder()
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
    seen = MessageRecorder()
    box = Mailbox(tmp_path / "a.sock", seen.on_message, uid=os.getuid() + 1)
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a")
    link.open()
    with pytest.raises(DaemonBusy):
        await link.request(GetStatus(), timeout=0.1)
    with connect(tmp_path / "a.sock") as stranger:
        assert await asyncio.to_thread(stranger.recv, 100) == b""
    assert seen.messages.empty()
    assert box.dropped
    assert box.clients == 0
    link.close()
    box.close()
