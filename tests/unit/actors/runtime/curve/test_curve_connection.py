"""``CurveConnection`` speaks CURVE with libzmq, and believes nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from fastn_p2p_actors.credentials.curve_client import CurveClient, CurveFailed
from fastn_p2p_actors.runtime.curve.curve_connection import vault_channel
from fastn_p2p_actors.runtime.curve.mailbox import CurveMailbox, CurveSender
from fastn_p2p_actors.runtime.specs import VaultAccess
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy
from fastn_p2p_client.ipc.messages import Ack, GetStatus, encode
from fastn_p2p_client.ipc.unix_sockets import set_opener
from tests.support.daemons import eventually


def pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


SERVER, OWN = pair(), pair()
ACCESS = VaultAccess(server_public=SERVER[0], public=OWN[0], secret=OWN[1])


class Server:
    """CURVE mailbox of libzmq that answers with the payload of the request, once ``replies`` is set."""

    def __init__(self, path: Path) -> None:
        self.replies = True
        self.received = 0
        self.box = CurveMailbox(path, self._answer, server_secret=SERVER[1], roles={OWN[0]: "network"})
        self.box.open()

    def _answer(self, caller: CurveSender, correlation: bytes, header: bytes, payload: bytes) -> None:
        assert header == encode(GetStatus())
        self.received += 1
        if self.replies:
            assert self.box.send(caller, correlation, encode(Ack()), payload)


@pytest.mark.parametrize("size", [0, 1, 200, 255, 256, 70_000, 3_000_000])
async def test_messages_of_every_size(tmp_path: Path, size: int) -> None:
    server, channel = Server(tmp_path / "v.sock"), vault_channel(tmp_path / "v.sock", ACCESS)
    channel.open()
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    replies = await asyncio.gather(*(channel.request(GetStatus(), payload, timeout=60) for _ in range(3)))
    assert [each.payload for each in replies] == [payload] * 3
    await channel.drain()
    channel.close()
    server.box.close()


async def test_it_connects_again_and_requests_in_flight_end(tmp_path: Path) -> None:
    server, channel = Server(tmp_path / "v.sock"), vault_channel(tmp_path / "v.sock", ACCESS)
    server.replies = False
    channel.open()
    waiting = asyncio.ensure_future(channel.request(GetStatus(), timeout=60))
    await asyncio.to_thread(eventually, lambda: server.received == 1, "the request has arrived")
    server.box.close()
    with pytest.raises(ConnectionLost):
        await waiting
    server = Server(tmp_path / "v.sock")
    assert (await channel.request(GetStatus(), b"again", timeout=60)).payload == b"again"
    channel.close()
    server.box.close()


async def test_messages_that_meet_the_end_of_the_connection_are_lost_with_it(tmp_path: Path) -> None:
    """The event loop closes the connection some steps before the task that reads from it runs."""
    server, channel = Server(tmp_path / "v.sock"), vault_channel(tmp_path / "v.sock", ACCESS)
    channel.open()
    await channel.request(GetStatus(), timeout=60)
    server.box.close()
    while channel.connected.is_set():
        channel.send(bytes(8), encode(GetStatus()), credited=True)
        await asyncio.sleep(0)
    server = Server(tmp_path / "v.sock")
    assert (await channel.request(GetStatus(), b"again", timeout=60)).payload == b"again"
    channel.close()
    server.box.close()


async def test_another_process_may_make_the_connection(tmp_path: Path) -> None:
    async def open_elsewhere(path: Path) -> socket.socket:
        asked.append(path)
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(tmp_path / "v.sock"))
        made.setblocking(False)
        return made

    asked: list[Path] = []
    server = Server(tmp_path / "v.sock")
    set_opener(open_elsewhere)
    try:
        channel = vault_channel(tmp_path / "no.sock", ACCESS)
        channel.open()
        assert (await channel.request(GetStatus(), b"x", timeout=60)).payload == b"x"
        channel.close()
    finally:
        set_opener(None)
        server.box.close()
    assert asked[0] == tmp_path / "no.sock"


@pytest.mark.parametrize("junk", [b"", b"\x00" * 200, b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(60)])
async def test_a_server_that_speaks_something_else_gets_no_request(tmp_path: Path, junk: bytes) -> None:
    received = bytearray()

    def answer(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(junk)
                    received.extend(connection.recv(65536))

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "v.sock"))
        listening.listen()
        answering = threading.Thread(target=answer, args=(listening,))
        answering.start()
        channel = vault_channel(tmp_path / "v.sock", ACCESS)
        channel.open()
        with pytest.raises(DaemonBusy):
            await channel.request(GetStatus(), b"secret", timeout=0.3)
        channel.close()
        listening.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(answering.join)
    assert received.startswith(b"\xff")
    assert b"secret" not in received


def test_replies_that_are_not_the_servers_are_refused() -> None:
    server, public, secret = z85.decode(SERVER[0]), z85.decode(OWN[0]), z85.decode(OWN[1])
    for welcome in (b"", b"\x05ERROR\x03400", b"\x07WELCOME" + bytes(160), b"\x07WELCOME" + bytes(16)):
        client = CurveClient(server, public, secret)
        assert len(client.hello()) == 200
        with pytest.raises(CurveFailed):
            client.initiate(welcome, b"")
    for frame in (b"", b"\x07MESSAGE", b"\x07MESSAGE" + bytes(7) + b"\x01" + bytes(40), b"plain"):
        with pytest.raises(CurveFailed):
            client.open(frame)
    with pytest.raises(CurveFailed):
        client.finish(b"\x05READY" + bytes(7) + b"\x01" + bytes(40))
