"""The two transports of the local protocol do the same, and a program chooses between them."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client import Client
from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, InvalidName, Overloaded, P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.ipc.transport.base import TRANSPORTS, TransportName, choose_transport
from fastn_p2p_client.ipc.transport.pyzmq.sockets import SocketMonitor, close_socket, dealer, endpoint
from fastn_p2p_client.limits import MAX_PAYLOAD, SEND_QUEUE

pytestmark = pytest.mark.both_loops
ACK = m.encode(m.Ack())


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    return request.param  # type: ignore[no-any-return]


class EchoMailbox:
    """Replies with the payload, and notes the requests in order of arrival. Keeps those whose payload is ``hold``."""

    def __init__(self, path: Path) -> None:
        self.arrived: list[bytes] = []
        self.box = Mailbox(path, self._on_message)
        self.box.open()

    def _on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.arrived.append(payload)
        if payload != b"hold":
            self.box.send(sender, correlation, ACK, payload)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not within 60 s"
        await asyncio.sleep(0)


async def test_requests_of_any_size_are_answered(tmp_path: Path, transport: TransportName) -> None:
    echo = EchoMailbox(tmp_path / "a.sock")
    link = RequestChannel(tmp_path / "a.sock", "a", transport=transport)
    link.open()
    for size in (0, 1, 100_000, 5_000_000):
        answer = await link.request(m.GetStatus(), b"x" * size, timeout=60)
        assert answer.payload == b"x" * size
    many = [link.request(m.GetStatus(), b"%d" % number, timeout=60) for number in range(1000)]
    assert [answer.payload for answer in await asyncio.gather(*many)] == [b"%d" % number for number in range(1000)]
    assert echo.arrived[-1000:] == [b"%d" % number for number in range(1000)]
    link.close()
    echo.box.close()


async def test_a_request_in_flight_ends_with_its_connection_and_the_next_one_finds_another_mailbox(
    tmp_path: Path, transport: TransportName
) -> None:
    """The other mailbox may have another path."""

    where = tmp_path / "a.sock"
    echo = EchoMailbox(where)
    link = RequestChannel(lambda: where, "a", transport=transport)
    link.open()
    await link.request(m.GetStatus(), timeout=60)
    held = asyncio.ensure_future(link.request(m.GetStatus(), b"hold", timeout=60))
    await until(lambda: b"hold" in echo.arrived)
    where = tmp_path / "b.sock"
    echo.box.close()
    with pytest.raises(ConnectionLost):
        await held
    echo = EchoMailbox(where)
    assert (await link.request(m.GetStatus(), b"again", timeout=60)).payload == b"again"
    link.close()
    echo.box.close()


@pytest.mark.parametrize("iterations", range(4))
def test_an_event_loop_that_closes_during_an_attempt_gets_no_next_one(
    tmp_path: Path, transport: TransportName, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt ends when its coroutine is destroyed, without a message on standard error."""

    async def begin() -> None:
        RequestChannel(tmp_path / "a.sock", "a", transport=transport).open()
        for _ in range(iterations):
            await asyncio.sleep(0)

    problems: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: problems.append(problem.exc_value))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
        listener.listen()
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, __: None)  # of a task that is destroyed while it waits
        loop.run_until_complete(begin())
        with warnings.catch_warnings(action="ignore"):
            loop.close()
            del loop
            gc.collect()
    assert problems == []


async def test_an_abandoned_connection_leaves_libzmq_to_the_others(tmp_path: Path) -> None:
    """libzmq's one thread would wait for ever to report an event to a monitor that is gone."""
    echo = EchoMailbox(tmp_path / "a.sock")
    watched = dealer()
    monitor = SocketMonitor(watched)
    events = monitor.socket
    del monitor
    gc.collect()
    assert events.closed
    watched.connect(endpoint(tmp_path / "a.sock"))
    link = RequestChannel(tmp_path / "a.sock", "a", transport="pyzmq")
    link.open()
    assert (await link.request(m.GetStatus(), b"x", timeout=60)).payload == b"x"
    close_socket(watched)
    link.close()
    echo.box.close()


async def test_a_reply_is_never_lost_behind_session_data(tmp_path: Path, transport: TransportName) -> None:
    """A reply that fits is sent; a reply that is too large for the queue becomes ``Overloaded``."""

    received: dict[bytes, bytes] = {}
    box = Mailbox(tmp_path / "a.sock", lambda _, correlation, header, __: received.update({correlation: header}))
    box.open()
    link = RequestChannel(tmp_path / "a.sock", "a", transport=transport)
    link.open()
    async with asyncio.timeout(50):
        await link.connected.wait()
    for _ in range(SEND_QUEUE + 1000):
        link.send(b"session", b"chunk", b"x", credited=True)
    link.answer(b"small", b"answer", b"")
    large = bytes(MAX_PAYLOAD)
    for number in range(8):
        link.answer(b"large%d" % number, b"answer", large)
    await until(lambda: len(received) == 10)
    assert received[b"small"] == b"answer"
    assert received[b"large0"] == b"answer"
    refused = msgspec.msgpack.decode(received[b"large7"], type=m.ErrorReply)
    assert isinstance(refused.error(), Overloaded)
    link.close()
    box.close()


async def test_messages_that_were_sent_right_before_close_arrive(tmp_path: Path, transport: TransportName) -> None:
    echo = EchoMailbox(tmp_path / "a.sock")
    link = RequestChannel(tmp_path / "a.sock", "a", transport=transport)
    link.open()
    await link.request(m.GetStatus(), timeout=60)
    echo.arrived.clear()
    for number in range(10):
        link.send(link.new_id(), ACK, b"%d" % number)
    link.close()
    await until(lambda: len(echo.arrived) == 10)
    assert echo.arrived == [b"%d" % number for number in range(10)]
    echo.box.close()


async def test_a_mailbox_that_may_not_be_used_is_refused_with_the_reason(
    tmp_path: Path, transport: TransportName
) -> None:
    echo = EchoMailbox(tmp_path / "a.sock")
    refused = True

    def find() -> Path:
        if refused:
            raise InvalidName(name="a.sock", what="a mailbox", reason="for this test")
        return tmp_path / "a.sock"

    link = RequestChannel(find, "a", transport=transport)
    link.open()
    with pytest.raises(P2PError) as failure:
        await link.request(m.GetStatus(), timeout=0.3)
    assert isinstance(failure.value, InvalidName | DaemonBusy)
    assert isinstance(link.socket_error, InvalidName)
    assert echo.arrived == []
    refused = False
    assert (await link.request(m.GetStatus(), b"x", timeout=60)).payload == b"x"
    link.close()
    echo.box.close()


def test_the_argument_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_transport() == "native"
    monkeypatch.setenv("FASTN_TRANSPORT", "pyzmq")
    assert choose_transport() == "pyzmq"
    assert choose_transport("native") == "native"


def test_an_unknown_transport_is_refused_and_the_known_ones_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTN_TRANSPORT", "carrier-pigeon")
    with pytest.raises(InvalidName, match="native, pyzmq"):
        Client(tmp_path)


def test_only_a_program_that_wants_libzmq_loads_it(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from fastn_p2p_client.ipc.request_channel import RequestChannel
async def main():
    link = RequestChannel(__import__("pathlib").Path({str(tmp_path / "a.sock")!r}), "a", transport=sys.argv[1])
    link.open()
    link.close()
asyncio.run(main())
print("zmq" in sys.modules)
"""
    for transport in TRANSPORTS:
        done = subprocess.run([sys.executable, "-c", code, transport], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(transport == "pyzmq")
