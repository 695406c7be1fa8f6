"""Mailbox and link over real sockets: who is listened to, and how asks end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import uvloop
import zmq

from fastn_p2p_actors.curve_mailbox import CurveMailbox
from fastn_p2p_actors.mailbox import Mailbox, Sender
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded, PayloadTooLarge
from fastn_p2p_client.limits import MAX_GROUP, MAX_PAYLOAD
from fastn_p2p_client.link import Link
from fastn_p2p_client.messages import Cancel, Done, GetStatus, encode

ECHO_SERVER = """
import asyncio, sys
from pathlib import Path
from fastn_p2p_actors.mailbox import Mailbox
async def main():
    box = Mailbox(Path(sys.argv[1]), lambda sender, id, header, payload: box.send(sender, id, header, payload))
    box.open()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Recorder:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[Sender, bytes, bytes, bytes]] = asyncio.Queue()
        self.gone: asyncio.Queue[Sender] = asyncio.Queue()

    def on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.messages.put_nowait((sender, correlation, header, payload))

    async def next(self) -> tuple[Sender, bytes, bytes, bytes]:
        async with asyncio.timeout(5):
            return await self.messages.get()


def test_ask_is_answered_and_the_sender_is_who_the_kernel_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen = Recorder()
        box = Mailbox(tmp_path / "a.sock", seen.on_message, on_gone=seen.gone.put_nowait)
        box.open()
        link = Link(tmp_path / "a.sock", "a")
        link.open()
        asked = asyncio.ensure_future(link.ask(GetStatus(), b"payload", timeout=5))
        sender, correlation, header, payload = await seen.next()
        assert (sender.uid, sender.pid) == (os.getuid(), os.getpid())
        assert (header, payload) == (encode(GetStatus()), b"payload")
        assert box.send(sender, correlation, encode(Done()), b"answer")
        assert await asked == (encode(Done()), b"answer")
        link.close()
        async with asyncio.timeout(5):
            assert await seen.gone.get() is sender
        assert not box.send(sender, correlation, encode(Done()))
        box.close()
        assert not (tmp_path / "a.sock").exists()

    uvloop.run(scenario())


def test_socket_file_is_private(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Mailbox(tmp_path / "a.sock", lambda *_: None)
        box.open()
        assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o600
        box.close()

    uvloop.run(scenario())


def test_deadline_ends_the_ask_and_tells_the_mailbox(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen = Recorder()
        box = Mailbox(tmp_path / "a.sock", seen.on_message)
        box.open()
        link = Link(tmp_path / "a.sock", "a")
        link.open()
        with pytest.raises(DeadlineExceeded) as caught:
            await link.ask(GetStatus(), timeout=0.3)
        assert caught.value.seconds <= 0.3
        assert (await seen.next())[2] == encode(GetStatus())
        assert (await seen.next())[2] == encode(Cancel())
        assert link.in_flight == 0
        link.close()
        box.close()

    uvloop.run(scenario())


def test_cancelling_an_ask_tells_the_mailbox(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen = Recorder()
        box = Mailbox(tmp_path / "a.sock", seen.on_message)
        box.open()
        link = Link(tmp_path / "a.sock", "a")
        link.open()
        asked = asyncio.ensure_future(link.ask(GetStatus(), timeout=5))
        first = await seen.next()
        asked.cancel()
        assert (await seen.next())[1:3] == (first[1], encode(Cancel()))
        link.close()
        box.close()

    uvloop.run(scenario())


def test_without_a_mailbox_the_ask_says_which_actor_is_missing(tmp_path: Path) -> None:
    async def scenario() -> None:
        link = Link(tmp_path / "none.sock", "gateway")
        link.open()
        with pytest.raises(DaemonBusy, match="gateway"):
            await link.ask(GetStatus(), timeout=0.2)
        link.close()

    uvloop.run(scenario())


def test_payload_above_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = Mailbox(tmp_path / "a.sock", lambda *_: None)
        box.open()
        link = Link(tmp_path / "a.sock", "a")
        link.open()
        with pytest.raises(PayloadTooLarge):
            await link.ask(GetStatus(), bytes(MAX_PAYLOAD + 1), timeout=5)
        link.close()
        box.close()

    uvloop.run(scenario())


def test_death_of_the_process_ends_asks_and_its_successor_serves(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", ECHO_SERVER, str(tmp_path / "a.sock")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    async def scenario() -> None:
        process = start()
        link = Link(tmp_path / "a.sock", "echo")
        link.open()
        try:
            assert (await link.ask(GetStatus(), b"1", timeout=5)).payload == b"1"
            process.send_signal(signal.SIGSTOP)
            asked = [asyncio.ensure_future(link.ask(GetStatus(), timeout=20)) for _ in range(5)]
            await asyncio.sleep(0)
            process.kill()
            process.communicate()
            for result in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(result, ConnectionLost)
            process = start()
            assert (await link.ask(GetStatus(), b"2", timeout=5)).payload == b"2"
        finally:
            link.close()
            process.kill()
            process.communicate()

    uvloop.run(scenario())


@pytest.mark.parametrize("frames", [[b""], [b"1"], [b"1", b"2"], [b"1", b"2", b"3", b"4"], [b"i" * 17, b"", b""]])
def test_messages_of_another_shape_are_not_handed_over(tmp_path: Path, frames: list[bytes]) -> None:
    async def scenario() -> None:
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

    uvloop.run(scenario())


def test_a_group_is_handed_over_message_by_message_and_its_size_is_limited(tmp_path: Path) -> None:
    async def scenario() -> None:
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

    uvloop.run(scenario())


def test_a_burst_arrives_whole_and_in_order_though_the_peer_is_slow_to_read(tmp_path: Path) -> None:
    async def scenario() -> None:
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

        link = Link(tmp_path / "a.sock", "a", on_message=on_message)
        link.open()
        asked = asyncio.ensure_future(link.ask(GetStatus(), timeout=60))
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

    uvloop.run(scenario())


def test_garbage_on_the_socket_and_too_many_connections_do_not_end_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen = Recorder()
        box = Mailbox(tmp_path / "a.sock", seen.on_message, max_clients=20)
        box.open()
        raw = []
        for _ in range(60):
            stranger = socket.socket(socket.AF_UNIX)
            stranger.settimeout(0.05)
            try:
                stranger.connect(str(tmp_path / "a.sock"))
                stranger.sendall(os.urandom(200))
            except OSError:
                pass
            raw.append(stranger)
            await asyncio.sleep(0)
        assert box.clients <= 60
        for stranger in raw:
            stranger.close()
        link = Link(tmp_path / "a.sock", "a")
        link.open()
        asked = asyncio.ensure_future(link.ask(GetStatus(), timeout=10))
        sender, correlation, _, _ = await seen.next()
        box.send(sender, correlation, encode(Done()))
        assert (await asked).header == encode(Done())
        link.close()
        box.close()

    uvloop.run(scenario())


def test_another_user_is_not_listened_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen = Recorder()
        box = Mailbox(tmp_path / "a.sock", seen.on_message, uid=os.getuid() + 1)
        box.open()
        link = Link(tmp_path / "a.sock", "a")
        link.open()
        with pytest.raises(DaemonBusy):
            await link.ask(GetStatus(), timeout=0.3)
        assert seen.messages.empty()
        link.close()
        box.close()

    uvloop.run(scenario())


def test_curve_role_is_the_key_and_unknown_keys_do_not_get_in(tmp_path: Path) -> None:
    class Keys(msgspec.Struct):
        server_public: str
        public: str
        secret: str

    server = [key.decode() for key in zmq.curve_keypair()]
    friend = [key.decode() for key in zmq.curve_keypair()]
    stranger = [key.decode() for key in zmq.curve_keypair()]

    async def scenario() -> None:
        seen = Recorder()
        box = CurveMailbox(tmp_path / "v.sock", seen.on_message, server_secret=server[1], roles={friend[0]: "network"})
        box.open()
        good = Link(tmp_path / "v.sock", "vault", curve=Keys(server[0], *friend))
        good.open()
        asked = asyncio.ensure_future(good.ask(GetStatus(), timeout=5))
        sender, correlation, _, _ = await seen.next()
        assert sender.role == "network"
        box.send(sender, correlation, encode(Done()))
        await asked
        for curve in (Keys(server[0], *stranger), None):
            bad = Link(tmp_path / "v.sock", "vault", curve=curve)
            bad.open()
            with pytest.raises(DaemonBusy):
                await bad.ask(GetStatus(), timeout=0.3)
            bad.close()
        assert seen.messages.empty()
        good.close()
        box.close()

    uvloop.run(scenario())
