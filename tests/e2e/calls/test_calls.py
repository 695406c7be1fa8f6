"""Calls between two daemons and inside one: names, types, sizes, numbers, deadlines, cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.network.wire.messages import BULK_THRESHOLD
from fastn_p2p_client import Client, ConnectionLost, DeadlineExceeded, PublicKey, Ticket
from fastn_p2p_client.ipc.messages import AddPeer, GetTicket, RemovePeer, TicketText
from fastn_p2p_client.limits import MAX_PAYLOAD
from tests.support.daemons import Daemon, eventually
from tests.support.processes import child, send_signal, signal_if_alive
from tests.support.two_daemons import TwoDaemons, binding_of, final_counts, handlers_at_work, until, wait_idle

pytestmark = [pytest.mark.both_transports, pytest.mark.usefixtures("transport")]

HI = {"message": "hi"}
ECHOED = {"echoed": "Echo: hi"}


class EchoReply(msgspec.Struct):
    echoed: str


@dataclass
class EchoRequest:
    message: str


def ticket_of(daemon: Daemon, name: str) -> str:
    with daemon.client() as client:
        reply = client.control(GetTicket(name))
    assert isinstance(reply, TicketText)
    return reply.ticket


def test_calls_inside_one_daemon_take_none(daemons: TwoDaemons) -> None:
    fred = daemons.one.identity("fred")
    before = len(daemons.one.status().connections)
    with daemons.one.client() as client:
        assert client.call("alice", fred, "Echo", request=HI) == ECHOED
        assert client.call("fred", daemons.alice, "Echo", request=HI) == ECHOED
        assert client.call("alice", daemons.alice, "Echo", request=HI) == ECHOED
        assert client.call("fred", daemons.alice, "Trial", request={"do": "who"})["key"] == fred
    assert len(daemons.one.status().connections) <= before


# ── whom, as whom, and what ──────────────────────────────────────────────────────────────────────


def test_a_peer_by_every_name_that_it_has(daemons: TwoDaemons) -> None:
    ticket = ticket_of(daemons.two, "bob")
    with daemons.one.client() as client:
        client.control(AddPeer(ticket, "my-bob"))
        for peer in (daemons.bob, PublicKey(daemons.bob), ticket, Ticket(ticket), "my-bob"):
            assert client.call("alice", peer, "Echo", request=HI) == ECHOED
        client.control(RemovePeer("my-bob"))


def test_a_handler_knows_who_asks_and_by_which_name(daemons: TwoDaemons) -> None:
    with daemons.one.client() as ours, daemons.two.client() as theirs:
        asked = ours.call("alice", daemons.bob, "Trial", request={"do": "who"})
        assert asked == {"key": daemons.alice, "name": None, "instance": "default"}
        theirs.control(AddPeer(daemons.alice, "al"))
        asked = ours.call("alice", daemons.bob, "Trial", request={"do": "who"})
        assert asked == {"key": daemons.alice, "name": "al", "instance": "default"}
        theirs.control(RemovePeer("al"))


def test_a_hosted_protocol_calls_others_as_its_identity(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        asked = client.call("alice", daemons.bob, "Trial", request={"do": "ask", "value": daemons.alice})
    assert asked["key"] == daemons.bob


def test_a_peer_in_the_address_book_may_use_a_binding_for_peers(daemons: TwoDaemons) -> None:
    """From the moment on that they are in it, and until they are not."""
    with daemons.one.client() as ours, daemons.two.client() as theirs:
        theirs.control(AddPeer(daemons.alice, "al"))
        assert ours.call("alice", daemons.bob, "Echo", "private", HI) == ECHOED
        theirs.control(RemovePeer("al"))
        with pytest.raises(Exception, match="does not let you use"):
            ours.call("alice", daemons.bob, "Echo", "private", HI)


def test_requests_and_replies_have_types(daemons: TwoDaemons) -> None:
    class Request(msgspec.Struct):
        message: str

    with daemons.one.client() as client:
        for request in (Request("hi"), EchoRequest("hi"), HI):
            reply = client.call("alice", daemons.bob, "Echo", request=request, returns=EchoReply)
            assert reply == EchoReply("Echo: hi")
        assert client.call("alice", daemons.bob, "Echo", request=HI, returns=dict[str, str]) == ECHOED


@pytest.mark.parametrize("value", [0, -1, 2**63, 1.5, "ünïcødé ☃", b"\0\xff", [1, [2, {}]], {"a": {"b": False}}])
def test_plain_values_arrive_as_they_were_sent(daemons: TwoDaemons, value: Any) -> None:
    with daemons.one.client() as client:
        assert client.call("alice", daemons.bob, "Trial", request={"do": "return", "value": value}) == value


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────

OVERHEAD = len(msgspec.msgpack.encode({"do": "return", "value": b"x" * BULK_THRESHOLD})) - BULK_THRESHOLD
SIZES = {
    "0": 0,
    "1": 1,
    "255": 255,
    "32 KiB": 32 * 1024,
    "a request of 64 KiB - 1": BULK_THRESHOLD - OVERHEAD - 1,
    "a request of 64 KiB": BULK_THRESHOLD - OVERHEAD,
    "a request of 64 KiB + 1": BULK_THRESHOLD - OVERHEAD + 1,
    "a reply of 64 KiB - 1": BULK_THRESHOLD - 3 - 1,
    "a reply of 64 KiB": BULK_THRESHOLD - 3,
    "a reply of 64 KiB + 1": BULK_THRESHOLD - 3 + 1,
    "1 MB": 1_000_000,
    "a request of 16 MiB": MAX_PAYLOAD - OVERHEAD,
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_payloads_of_every_size(daemons: TwoDaemons, size: int) -> None:
    """Request and reply, to another daemon and inside one."""
    value = os.urandom(size)
    with daemons.one.client() as client:
        for peer in (daemons.bob, daemons.alice):
            reply = client.call("alice", peer, "Trial", request={"do": "return", "value": value}, returns=bytes)
            assert reply == value


def test_a_reply_of_exactly_the_largest_size(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        reply = client.call("alice", daemons.bob, "Trial", request={"do": "return", "size": MAX_PAYLOAD - 5})
    assert reply == b"x" * (MAX_PAYLOAD - 5)


def test_a_large_payload_on_the_command_line(daemons: TwoDaemons) -> None:
    message = "ü" * 500_000
    done = daemons.one.cli("call", daemons.bob, "Echo", "large", "--as", "alice", input=f'{{"message": "{message}"}}')
    assert done.stdout == f'{{"echoed":"Echo: {message}"}}\n', done.stderr


# ── many at once ─────────────────────────────────────────────────────────────────────────────────


async def test_two_hundred_calls_in_flight(daemons: TwoDaemons, client: Client) -> None:
    """The handler runs two hundred times at once."""
    waiting = {"do": "wait", "seconds": 30}

    calls = [asyncio.create_task(client.call("alice", daemons.bob, "Trial", request=waiting)) for _ in range(200)]
    await until(lambda: binding_of(daemons.two, "bob", "Trial").in_flight == 200, "200 are in flight")
    assert sum(each.in_flight for each in daemons.one.status().connections) == 200
    for call in calls:
        call.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*calls, return_exceptions=True))
    await asyncio.to_thread(wait_idle, daemons.two)
    await asyncio.to_thread(wait_idle, daemons.one)


def test_many_threads_share_a_blocking_client(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client, ThreadPoolExecutor(16) as threads:

        def call(number: int) -> str:
            return client.call("alice", daemons.bob, "Echo", request={"message": str(number)}, returns=EchoReply).echoed

        assert list(threads.map(call, range(200))) == [f"Echo: {number}" for number in range(200)]


async def test_a_slow_call_does_not_delay_others(daemons: TwoDaemons, client: Client) -> None:
    """Neither one that waits, nor one that carries 16 MiB both ways."""

    waiting = asyncio.create_task(client.call("alice", daemons.bob, "Trial", request={"do": "wait"}))
    for peer in (daemons.bob, daemons.alice):
        large = asyncio.create_task(
            client.call("alice", peer, "Trial", request={"do": "return", "value": b"x" * (16 << 20 >> 1)})
        )
        for _ in range(3):
            assert await client.call("alice", peer, "Echo", request=HI) == ECHOED
        assert len(await large) == 8 << 20
    assert not waiting.done()
    waiting.cancel()
    await asyncio.to_thread(wait_idle, daemons.two)


# ── deadlines and cancellation ───────────────────────────────────────────────────────────────────


def cancelled_at_bob(daemons: TwoDaemons) -> int:
    """Return how many handlers of bob have been cancelled, once none waits any more."""
    return final_counts(daemons.two, "bob")["cancelled"]


def bob_at_work(daemons: TwoDaemons) -> int:
    return handlers_at_work(daemons.two, "bob")


def test_a_deadline_ends_the_handler_too(daemons: TwoDaemons) -> None:
    def cancelled() -> int:
        """Return the number of handlers that were cancelled: none if the call has not arrived by its deadline."""
        before = final_counts(daemons.two, "bob")
        with daemons.one.client() as client, pytest.raises(DeadlineExceeded):
            client.call("alice", daemons.bob, "Trial", request={"do": "wait"}, timeout=0.2)
        wait_idle(daemons.two)
        after = final_counts(daemons.two, "bob")
        assert after["cancelled"] - before["cancelled"] == after["begun"] - before["begun"]
        return after["cancelled"] - before["cancelled"]

    assert eventually(cancelled, "a handler runs at the deadline") == 1


async def test_a_deadline_travels_with_the_call(daemons: TwoDaemons, client: Client) -> None:
    """The peer daemon keeps it by itself when the caller's daemon can no longer cancel the call."""
    before = cancelled_at_bob(daemons)
    network = daemons.one.pid("network")

    waiting = asyncio.create_task(client.call("alice", daemons.bob, "Trial", request={"do": "wait"}, timeout=3))
    await until(lambda: bob_at_work(daemons), "the handler runs")
    send_signal(network, signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded):
            await waiting
        await until(lambda: not bob_at_work(daemons), "the handler was cancelled")
    finally:
        signal_if_alive(network, signal.SIGCONT)
    assert cancelled_at_bob(daemons) == before + 1


async def test_cancelling_a_call_cancels_its_handler(daemons: TwoDaemons, client: Client) -> None:
    """Near and far."""

    async def call_and_cancel(daemon: Daemon, identity: str, peer: str) -> None:
        call = asyncio.create_task(client.call("alice", peer, "Trial", request={"do": "wait"}))
        await until(lambda: handlers_at_work(daemon, identity), "the handler runs")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not binding_of(daemon, identity, "Trial").in_flight, "nothing is in flight")

    for daemon, identity, peer in ((daemons.two, "bob", daemons.bob), (daemons.one, "alice", daemons.alice)):
        before = final_counts(daemon, identity)["cancelled"]
        await call_and_cancel(daemon, identity, peer)
        assert final_counts(daemon, identity)["cancelled"] == before + 1
        await asyncio.to_thread(wait_idle, daemon)


@pytest.mark.parametrize("milliseconds", [0, 1, 5, 20])
async def test_a_large_call_may_be_cancelled_at_any_moment(
    daemons: TwoDaemons, milliseconds: int, client: Client
) -> None:
    """The cancellation may overtake the call."""

    order = {"do": "wait", "value": b"x" * (4 << 20)}
    call = asyncio.create_task(client.call("alice", daemons.bob, "Trial", request=order, timeout=60))
    await asyncio.sleep(milliseconds / 1000)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with daemons.one.client() as other:  # whatever was on its way before this has arrived after it
        other.call("alice", daemons.bob, "Trial", request={"value": b"x" * (4 << 20)})
    await asyncio.to_thread(wait_idle, daemons.two)


PROGRAM = """
import sys
from fastn_p2p_client.sync import call
print("calling", flush=True)
call("alice", sys.argv[1], "Trial", request={"do": "wait"}, timeout=60)
"""


def test_a_program_that_is_killed_takes_its_calls_with_it(daemons: TwoDaemons) -> None:
    before = cancelled_at_bob(daemons)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, daemons.bob], env=daemons.one.env, stdout=subprocess.PIPE
    )
    with program:
        try:
            eventually(lambda: bob_at_work(daemons), "the handler runs")
        finally:
            program.kill()
    assert cancelled_at_bob(daemons) == before + 1
    wait_idle(daemons.one)
    wait_idle(daemons.two)


async def test_closing_a_client_ends_its_calls(daemons: TwoDaemons, client: Client) -> None:
    call = asyncio.create_task(client.call("alice", daemons.bob, "Trial", request={"do": "wait"}))
    await until(lambda: binding_of(daemons.two, "bob", "Trial").in_flight, "the handler runs")
    client.close()
    with pytest.raises(ConnectionLost):
        await call
    assert await client.call("alice", daemons.bob, "Echo", request=HI) == ECHOED  # opens again
    await asyncio.to_thread(wait_idle, daemons.two)


def test_interrupting_a_blocking_call_cancels_it(daemons: TwoDaemons) -> None:
    """Ctrl-C while ``sync.call`` waits."""
    before = cancelled_at_bob(daemons)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, daemons.bob],
        env=daemons.one.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: bob_at_work(daemons), "the handler runs")
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=60)
    finally:
        program.kill()
        program.communicate()
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert cancelled_at_bob(daemons) == before + 1


LOOPS = """
import asyncio, sys
from fastn_p2p_client import call, sync
question = ("alice", sys.argv[1], "Echo", "default", {"message": "hi"})
for _ in range(3):
    print(asyncio.run(call(*question))["echoed"], sync.call(*question)["echoed"], flush=True)
sys.stdin.read()
"""


def test_one_client_in_several_event_loops_one_after_the_other(daemons: TwoDaemons) -> None:
    """The shared client of ``call`` belongs to its loop, and goes with it."""
    before = daemons.one.status().clients
    with child(
        subprocess.Popen(
            [sys.executable, "-c", LOOPS, daemons.bob],
            env=daemons.one.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    ) as program:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(3)] == ["Echo: hi Echo: hi\n"] * 3
        # Only the connection of the blocking twin's loop is left; those of earlier loops went with them.
        eventually(lambda: daemons.one.status().clients <= before + 1, "no connection of an earlier loop is left")
        program.communicate("")
    assert program.returncode == 0


def test_a_call_waits_for_no_timer(daemons: TwoDaemons) -> None:
    """Not a benchmark: the fastest of fifty calls shows that none of its turns waits for a timer."""
    with daemons.one.client() as client:
        client.call("alice", daemons.bob, "Echo", request=HI)

        def seconds() -> float:
            began = time.perf_counter()
            client.call("alice", daemons.bob, "Echo", request=HI)
            return time.perf_counter() - began

        assert min(seconds() for _ in range(50)) < 0.2
