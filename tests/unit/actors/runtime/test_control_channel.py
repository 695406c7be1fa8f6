"""The control channel at the actor's end; the test acts as the supervisor."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.runtime.specs import ActorSpec, IdentitySettings
from fastn_p2p_client.errors import DaemonBusy, DeadlineExceeded, Forbidden, PayloadTooLarge
from fastn_p2p_client.ipc.messages import Ack, ErrorReply

SPEC = ActorSpec(
    name="gateway", module="none", home="/nowhere", heartbeat=0.01, settings={"identity": "alice", "grant": b"\x00\xff"}
)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = wire.open_pair()
    with ours, theirs:
        yield ours, theirs


async def receive(channel: socket.socket) -> wire.FromChild:
    """Return the actor's next message."""
    async with asyncio.timeout(50):
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(channel, readable.set)
        await readable.wait()
        loop.remove_reader(channel)
        return wire.receive_from_child(channel)


async def test_ready_then_heartbeats(channel: tuple[socket.socket, socket.socket]) -> None:
    context = ActorContext(SPEC, channel[1])
    context.ready()
    context.ready()
    ready, first, second = [await receive(channel[0]) for _ in range(3)]
    assert (ready, second) == (wire.Ready(), wire.Heartbeat())
    assert isinstance(first, wire.Heartbeat)
    assert first.memory > 0, "now and then it says what it uses"


async def test_an_answer_finds_its_question(channel: tuple[socket.socket, socket.socket]) -> None:
    context = ActorContext(SPEC, channel[1])
    start = asyncio.create_task(context.request_from_supervisor(wire.StartIdentity("alice"), 10))
    tree = asyncio.create_task(context.request_from_supervisor(wire.GetProcesses(), 10))
    asked = [await receive(channel[0]), await receive(channel[0])]
    assert asked == [wire.ChildRequest(1, wire.StartIdentity("alice")), wire.ChildRequest(2, wire.GetProcesses())]
    report = wire.ProcessList([wire.ProcessInfo("vault", 7, "ready", 1, 0, "")])
    forbidden = Forbidden(role="gateway", request="StartIdentity")
    wire.send(channel[0], wire.ChildResponse(99, Ack()))
    wire.send(channel[0], wire.ChildResponse(2, report))
    wire.send(channel[0], wire.ChildResponse(1, ErrorReply.of(forbidden)))
    assert await tree == report
    with pytest.raises(Forbidden, match="gateway may not send StartIdentity"):
        await start


async def test_failed_requests_to_the_supervisor(channel: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(DaemonBusy):
        await ActorContext(SPEC).request_from_supervisor(wire.GetProcesses(), 10)
    context = ActorContext(SPEC, channel[1])
    with pytest.raises(DeadlineExceeded):
        await context.request_from_supervisor(wire.GetProcesses(), 0.01)
    with pytest.raises(PayloadTooLarge):
        await context.request_from_supervisor(wire.EnsureOnline(("n" * wire.MAX_MESSAGE,)), 10)
    while wire.send(channel[1], wire.Heartbeat()):
        pass
    with pytest.raises(DaemonBusy):
        await context.request_from_supervisor(wire.GetProcesses(), 10)


async def test_shutdown_sets_stop_requested(channel: tuple[socket.socket, socket.socket]) -> None:
    context = ActorContext(SPEC, channel[1])
    wire.send(channel[0], wire.Shutdown())
    async with asyncio.timeout(50):
        await context.stop_requested.wait()


async def test_settings_are_checked() -> None:
    async def play() -> IdentitySettings:
        return ActorContext(SPEC).load_settings(IdentitySettings)

    assert await play() == IdentitySettings(identity="alice", grant=b"\x00\xff")


@pytest.mark.parametrize(
    "packet",
    [b"\x00", b"\x91\x63", b"\x92\x03\x01", b"\x93\x03\x01\x91\x63", b"\x92\x04\x01", b"\xff" * (wire.MAX_MESSAGE + 1)],
    ids=["no array", "unknown tag", "too short", "unknown request", "wrong type", "too long"],
)
def test_rejects_invalid_messages(channel: tuple[socket.socket, socket.socket], packet: bytes) -> None:
    channel[1].send(packet)
    with pytest.raises(wire.ControlProtocolError):
        wire.receive_from_child(channel[0])


def test_the_other_end_is_gone(channel: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(BlockingIOError):
        wire.receive_from_child(channel[0])
    channel[1].close()
    with pytest.raises(EOFError):
        wire.receive_from_child(channel[0])
    with pytest.raises(OSError, match="Broken pipe"):
        wire.send(channel[0], wire.Shutdown())


async def test_descriptor_goes_with_its_message_alone(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    context = ActorContext(SPEC, theirs, 7)
    assert context.kept_descriptor == 7
    reader, writer = os.pipe()
    try:
        context.keep_descriptor(writer)
        context.keep_descriptor(-1)
        context.report_fault_excluded()
        message, (copy,) = wire.receive_with_descriptors(ours)
        assert message == wire.KeepDescriptor()
        os.write(copy, b"same")
        os.close(copy)
        assert os.read(reader, 10) == b"same"
        assert wire.receive_with_descriptors(ours) == (wire.KeepDescriptor(), [])
        assert wire.receive_with_descriptors(ours) == (wire.FaultExcluded(), [])
    finally:
        os.close(reader)
        os.close(writer)


def test_descriptor_of_an_invalid_message_is_closed(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    reader, writer = os.pipe()
    try:
        socket.send_fds(theirs, [b"\xc1"], [writer])
        os.close(writer)
        with pytest.raises(wire.ControlProtocolError):
            wire.receive_with_descriptors(ours)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
