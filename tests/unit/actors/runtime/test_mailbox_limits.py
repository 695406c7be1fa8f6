"""Limits of a mailbox: connections, descriptors, and bytes that it holds for a sender."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil

from fastn_p2p_actors.runtime.connection_limits import ConnectionLimits
from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, GetStatus, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.ipc.transport.native.codec import GREETING, ready
from fastn_p2p_client.ipc.transport.native.codec import encode as encode_frames
from fastn_p2p_client.limits import MAX_PAYLOAD
from tests.support.daemons import eventually
from tests.support.mailboxes import POOR_SERVER, MessageRecorder, assert_answers, connect


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
        await asyncio.to_thread(eventually, lambda: sum(map(is_open, crowd)) == 6, "one and five are left")
        assert box.clients == 1
    finally:
        for each in crowd:
            each.close()
        box.close()


async def test_without_a_descriptor_to_spare_it_goes_on_and_does_not_spin(tmp_path: Path) -> None:
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", POOR_SERVER, str(tmp_path / "a.sock")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
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
        assert (await late.request(GetStatus(), b"after", timeout=60)).payload == b"after"
        assert sum(psutil.Process(process.pid).cpu_times()[:2]) - sum(began[:2]) < 0.3
        for stranger in crowd:
            stranger.close()
        late.close()
        link.close()
    finally:
        process.kill()
        _, told = process.communicate()
    assert told == ""  # again


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
    seen = MessageRecorder()
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
    seen = MessageRecorder()
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
    seen = MessageRecorder()
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
