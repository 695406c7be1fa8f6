"""Sessions between two daemons and inside one: bytes, ends, errors, and nobody waits for one who does not read.

What is true between daemons is true within one, so most tests here are tried with both.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
import pytest

import fastn_p2p_client.errors as e
from fastn_p2p_client import Client, Session, sync
from fastn_p2p_client import messages as m
from fastn_p2p_client.limits import MAX_INITIAL, MAX_RESET_CODE, MAX_SESSIONS_PER_PEER, RESET_CLOSED, RESET_FAILED
from tests.e2e.world import World, binding_of, counts_of, give, until
from tests.harness import Daemon, eventually
from tests.protocols import BLOCK

T = TypeVar("T")
MIB: Final = 1024 * 1024
STRANGER: Final = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"


def run(daemon: Daemon, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """``work`` with a client of ``daemon``, in an event loop of its own."""

    async def session() -> T:
        async with Client(daemon.home, program="tests") as client, asyncio.timeout(50):
            return await work(client)

    return asyncio.run(session())


@pytest.fixture(params=["far", "near"])
def peer(world: World, request: pytest.FixtureRequest) -> str:
    """bob at the other daemon, or alice herself; in the end nothing is left at either."""
    return world.bob if request.param == "far" else world.alice


@pytest.fixture(scope="module")
def watchers(world: World) -> Iterator[list[sync.Client]]:
    """A connection to each daemon."""
    with world.one.client() as one, world.two.client() as two:
        yield [one, two]


@pytest.fixture(autouse=True)
def nothing_is_left(watchers: list[sync.Client]) -> Iterator[None]:
    yield

    def statuses() -> list[m.Status]:
        return [reply.status for reply in (watcher.control(m.GetStatus()) for watcher in watchers)]  # type: ignore[union-attr]

    eventually(lambda: sum(map(sessions_in, statuses())) == 0, "no session is left", 5)


def standing(world: World) -> int:
    """How many sessions stand, by the status of both daemons."""
    return sessions_in(world.one.status()) + sessions_in(world.two.status())


def sessions_in(status: m.Status) -> int:
    """Those that are served there, and those that stand with peers."""
    served = sum(binding.sessions for identity in status.identities for binding in identity.bindings)
    return served + sum(connection.streams - 1 for connection in status.connections)


def place(world: World, peer: str) -> tuple[Daemon, str]:
    """Where the peer is served, and under which name."""
    return (world.two, "bob") if peer == world.bob else (world.one, "alice")


@asynccontextmanager
async def connected(client: Client, peer: str, do: str = "echo", **order: Any) -> AsyncIterator[Session]:
    async with await client.connect("alice", peer, "Trial", initial={"do": do, **order}) as session:
        yield session


async def read_all(session: Session) -> bytes:
    return b"".join([chunk async for chunk in session])


async def outcome(work: Awaitable[object]) -> object:
    try:
        return await work
    except Exception as error:
        return error


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_said_comes_back_and_the_peer_is_known(world: World, peer: str) -> None:
    async def talk(client: Client) -> None:
        async with connected(client, peer) as session:
            assert session.peer.key.id52 == peer
            assert (session.protocol, session.instance) == ("Trial", "default")
            for size in (1, 100, 65_536, 300_000):
                await session.write(bytes(size))
                assert await session.read_exactly(size) == bytes(size)
            assert session.bytes_read == session.bytes_written == 365_637
            await session.send_eof()
            assert await session.read() == b""
        async with connected(client, peer, "who") as session:
            assert await read_all(session) == f"{world.alice} None default".encode()

    run(world.one, talk)


def test_both_directions_are_half_closed_each_in_its_time(world: World, peer: str) -> None:
    """First ours, with an answer that needs all of it; and first theirs, with more from us afterwards."""

    async def talk(client: Client) -> None:
        async with connected(client, peer, "count") as session:
            await session.write(b"x" * 1000)
            await session.send_eof()
            with pytest.raises(e.SessionClosed):
                await session.write(b"more")
            assert await read_all(session) == f"1000 {hashlib.blake2b(b'x' * 1000).hexdigest()}".encode()
        async with connected(client, peer, "send", size=1000) as session:
            assert await read_all(session) == BLOCK[:1000]

    run(world.one, talk)


@pytest.mark.parametrize("size", [0, 1, 64 * MIB])
def test_every_byte_arrives_in_both_directions_at_once(world: World, peer: str, size: int) -> None:
    sent, received = hashlib.blake2b(), hashlib.blake2b()

    async def say(session: Session) -> None:
        left = size
        while left:
            block = BLOCK[: min(left, len(BLOCK))]
            sent.update(block)
            await session.write(block)
            left -= len(block)
        await session.send_eof()

    async def hear(session: Session) -> int:
        count = 0
        async for chunk in session:
            received.update(chunk)
            count += len(chunk)
        return count

    async def talk(client: Client) -> None:
        async with connected(client, peer) as session:
            _, count = await asyncio.gather(say(session), hear(session))
            assert count == size

    run(world.one, talk)
    assert sent.digest() == received.digest()


def test_large_amounts_are_copied_from_and_to_files(world: World, peer: str) -> None:
    data = BLOCK * 40

    async def talk(client: Client) -> None:
        async with connected(client, peer) as session:
            taken = io.BytesIO()
            assert await session.copy_both(io.BytesIO(data), taken) == (len(data), len(data))
            assert taken.getvalue() == data
        async with connected(client, peer, "count") as session:
            assert await session.copy_from(io.BytesIO(data)) == len(data)
            assert await read_all(session) == f"{len(data)} {hashlib.blake2b(data).hexdigest()}".encode()

    run(world.one, talk)


def test_several_sessions_carry_their_own_bytes_at_once(world: World) -> None:
    async def talk(client: Client, number: int) -> bool:
        data = bytes([number]) * (number * 20_000 + 1)
        async with connected(client, (world.bob, world.alice)[number % 2]) as session:
            taken = io.BytesIO()
            await session.copy_both(io.BytesIO(data), taken)
            return taken.getvalue() == data

    async def all_at_once(client: Client) -> list[bool]:
        return list(await asyncio.gather(*(talk(client, number) for number in range(40))))

    assert run(world.one, all_at_once) == [True] * 40


def test_a_ticket_and_another_instance_lead_to_sessions_too(world: World) -> None:
    give(world.two, "bob", "Trial", "second")
    with world.two.client() as client:
        reply = client.control(m.GetTicket("bob"))
    assert isinstance(reply, m.TicketText)
    ticket = reply.ticket

    async def talk(client: Client) -> bytes:
        async with await client.connect(None, ticket, "Trial", "second", {"do": "who"}) as session:
            return await read_all(session)

    assert run(world.one, talk) == f"{world.alice} None second".encode()


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [0, 7, MAX_RESET_CODE])
def test_a_reset_arrives_with_its_code(world: World, peer: str, code: int) -> None:
    async def by_the_handler(client: Client) -> None:
        session = await client.connect("alice", peer, "Trial", initial={"do": "reset", "code": code})
        await session.write(b"x")
        for work in (session.read(), session.wait_sent(), session.write(b"x" * 4 * MIB)):
            error = await outcome(work)
            assert isinstance(error, e.StreamReset), error
            assert error.reset_code == code
        await outcome(session.close())

    async def by_the_program(client: Client) -> None:
        daemon, name = place(world, peer)
        before = counts_of(daemon, name)["ended"]
        session = await client.connect("alice", peer, "Trial", initial={"do": "hold"})
        assert await session.read()
        session.reset(code)
        await until(lambda: counts_of(daemon, name)["ended"] == before + 1, "the handler has noticed", 2)

    run(world.one, by_the_handler)
    run(world.one, by_the_program)


def test_a_handler_that_fails_never_looks_as_if_it_had_finished(world: World, peer: str) -> None:
    async def talk(client: Client) -> None:
        session = await client.connect("alice", peer, "Trial", initial={"do": "fail"})
        await session.write(b"x")
        error = await outcome(session.read())
        assert isinstance(error, e.StreamReset)
        assert error.reset_code == RESET_FAILED
        await outcome(session.close())

    run(world.one, talk)


def test_a_side_that_closes_first_is_noticed_by_the_other(world: World, peer: str) -> None:
    async def talk(client: Client) -> None:
        session = await client.connect("alice", peer, "Trial", initial={"do": "ignore"})
        assert await session.read() == b""
        error = await outcome(session.write(b"x" * 8 * MIB))
        assert isinstance(error, e.StreamReset)
        assert error.reset_code == RESET_CLOSED
        await session.close()  # no error: everything has been said about it

        daemon, name = place(world, peer)
        before = counts_of(daemon, name)["ended"]
        async with connected(client, peer, "hold") as session:
            assert await session.read()
        await until(lambda: counts_of(daemon, name)["ended"] == before + 1, "the handler has noticed", 2)

    run(world.one, talk)


def test_what_was_written_before_the_end_of_the_program_arrives(world: World, peer: str) -> None:
    """A session that was closed is delivered though the program is gone: told by what the handler has counted."""
    daemon, name = place(world, peer)
    before = binding_of(daemon, name, "Trial")

    async def talk(client: Client) -> None:
        async with connected(client, peer, "count") as session:
            await session.write(b"x" * 100_000)

    run(world.one, talk)

    def ended() -> bool:
        binding = binding_of(daemon, name, "Trial")
        return binding.opened == before.opened + 1 and binding.sessions == 0

    eventually(ended, "the session has ended")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────

NOBODY_ASKS: Final = {"identity": "alice", "protocol": "Trial", "instance": "default", "initial": {"do": "echo"}}
REFUSALS: dict[str, tuple[dict[str, Any], Callable[[World, str], Exception]]] = {
    "a name that is nobody's": ({"peer": "nobody"}, lambda w, p: e.PeerUnknown(peer="nobody")),
    "an ID52 that nobody knows": ({"peer": STRANGER}, lambda w, p: e.PeerUnknown(peer=STRANGER)),
    "no such identity": ({"identity": "nobody"}, lambda w, p: e.IdentityOffline(identity="nobody")),
    "an identity that is offline": ({"identity": "erin"}, lambda w, p: e.IdentityOffline(identity="erin")),
    "a protocol that is not there": ({"protocol": "Nope"}, lambda w, p: e.ProtocolNotFound(peer=p, protocol="Nope")),
    "an instance that is not there": (
        {"instance": "nope"},
        lambda w, p: e.InstanceNotFound(peer=p, protocol="Trial", instance="nope"),
    ),
    "a protocol without sessions": (
        {"protocol": "Echo"},
        lambda w, p: e.BadRequest(protocol="Echo", reason="it takes no sessions"),
    ),
    "a handler that says no": (
        {"initial": {"do": "refuse", "size": 3}},
        lambda w, p: e.ApplicationError("Refused", "as ordered", {"size": 3}),
    ),
    "a handler that crashes at once": (
        {"initial": {"do": "raise"}},
        lambda w, p: e.HandlerFailed(peer=p, protocol="Trial", reason="RuntimeError"),
    ),
    "initial data that does not fit": (
        {"initial": {"do": 5}},
        lambda w, p: e.BadRequest(protocol="Trial", reason="Expected `str`, got `int` - at `$.do`"),
    ),
    "initial data that is too large": (
        {"initial": b"x" * MAX_INITIAL},
        lambda w, p: e.PayloadTooLarge(size=MAX_INITIAL + 5, limit=MAX_INITIAL),
    ),
    "a name that no protocol can have": (
        {"protocol": "no-good"},
        lambda w, p: e.InvalidName(
            name="no-good", what="a protocol", reason="it starts with a letter, then letters and digits"
        ),
    ),
    "no answer in time": (
        {"initial": {"do": "ponder"}, "timeout": 0.4},
        lambda w, p: e.DeadlineExceeded(seconds=0.4),
    ),
}


@pytest.fixture(scope="module")
def erin(world: World) -> None:
    """An identity that is offline."""
    world.one.identity("erin", online=False)


def agrees(error: object, expected: Exception) -> None:
    assert type(error) is type(expected), repr(error)
    if isinstance(expected, e.P2PError):
        assert isinstance(error, e.P2PError)
        assert error.fields() == expected.fields()
    else:
        assert vars(error) == vars(expected)


@pytest.mark.usefixtures("erin")
@pytest.mark.parametrize("name", REFUSALS)
def test_connect_raises_what_is_wrong(world: World, peer: str, name: str) -> None:
    changed, expected = REFUSALS[name]

    async def ask(client: Client) -> object:
        arguments = {"peer": peer, **NOBODY_ASKS, **changed}
        return await outcome(client.connect(**arguments))

    agrees(run(world.one, ask), expected(world, peer))


def test_initial_data_of_the_largest_size_arrives(world: World, peer: str) -> None:
    async def ask(client: Client) -> bytes:
        frame = len(msgspec.msgpack.encode({"do": "who", "more": bytes(1000)})) - 1000
        initial = {"do": "who", "more": bytes(MAX_INITIAL - frame)}
        assert len(msgspec.msgpack.encode(initial)) == MAX_INITIAL
        async with await client.connect("alice", peer, "Trial", initial=initial) as session:
            return await read_all(session)

    assert run(world.one, ask).startswith(world.alice.encode())


def test_a_stranger_is_denied_before_the_handler_is_asked(world: World) -> None:
    give(world.two, "bob", "Trial", "private", "peers")

    async def ask(client: Client) -> object:
        return await outcome(client.connect("alice", world.bob, "Trial", "private", {"do": "echo"}))

    agrees(run(world.one, ask), e.Denied(peer=world.bob, protocol="Trial", instance="private"))
    assert binding_of(world.two, "bob", "Trial", "private").opened == 0


def test_a_connect_that_is_cancelled_cancels_the_handler(world: World, peer: str) -> None:
    """Long before its deadline."""
    daemon, name = place(world, peer)
    before = counts_of(daemon, name)["cancelled"]

    async def ask(client: Client) -> None:
        connecting = asyncio.create_task(client.connect("alice", peer, "Trial", initial={"do": "ponder"}, timeout=30))
        await until(lambda: binding_of(daemon, name, "Trial").sessions == 1, "the handler is asked")
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await until(lambda: counts_of(daemon, name)["cancelled"] == before + 1, "the handler was cancelled", 3)

    run(world.one, ask)


def test_a_client_that_is_closed_ends_its_sessions(world: World, peer: str) -> None:
    daemon, name = place(world, peer)

    async def talk(client: Client) -> None:
        session = await client.connect("alice", peer, "Trial", initial={"do": "echo"})
        connecting = asyncio.create_task(client.connect("alice", peer, "Trial", initial={"do": "ponder"}))
        reading = asyncio.create_task(session.read())
        await until(lambda: binding_of(daemon, name, "Trial").sessions == 2, "both are there")
        client.close()
        for work in (reading, connecting, session.write(b"x"), session.close()):
            assert isinstance(await outcome(work), e.ConnectionLost)
        async with connected(client, peer, "who") as session:  # opens again
            assert await read_all(session)

    run(world.one, talk)


def test_no_daemon_is_said_as_such(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("nobody")

    async def ask(client: Client) -> object:
        return await outcome(client.connect(None, STRANGER, "Trial"))

    agrees(run(daemon, ask), e.DaemonNotRunning(home=str(daemon.home.path)))


# ── whoever does not read ────────────────────────────────────────────────────────────────────────


async def fill(session: Session) -> int:
    """Write until nothing moves for a while; how much that was."""

    async def pour() -> None:
        while True:
            await session.write(BLOCK)

    pouring = asyncio.create_task(pour())
    count = -1
    while session.bytes_written != count:
        count = session.bytes_written
        await asyncio.sleep(0.15)
    pouring.cancel()
    return count


def test_a_reader_that_stalls_stops_the_writer_and_nobody_else(world: World, peer: str) -> None:
    async def talk(client: Client) -> None:
        stalled = [await client.connect("alice", peer, "Trial", initial={"do": "hold"}) for _ in range(3)]
        counts = [await fill(session) for session in stalled]
        print("taken while nobody reads:", counts)
        assert all(count < 6 * MIB for count in counts)  # a window at each hop, and QUIC's own
        for _ in range(10):
            began = time.monotonic()
            assert await client.call("alice", peer, "Trial", request={"do": "return", "value": 7}) == 7
            async with connected(client, peer, "send", size=100_000) as session:
                assert len(await read_all(session)) == 100_000
            assert time.monotonic() - began < 2
        for session in stalled:
            session.reset(1)

    run(world.one, talk)


def test_a_handler_that_is_not_read_waits_and_goes_on(world: World, peer: str) -> None:
    """What it has sent in the meantime is bounded, and nothing of it is lost."""

    async def talk(client: Client) -> None:
        size = 24 * MIB
        async with connected(client, peer, "send", size=size) as session:
            first = await session.read(1)
            await asyncio.sleep(0.5)
            assert await client.call("alice", peer, "Trial", request={"do": "return", "value": 7}) == 7
            digest = hashlib.blake2b(first)
            async for chunk in session:
                digest.update(chunk)
            assert session.bytes_read == size
        assert digest.digest() == hashlib.blake2b(BLOCK * (size // len(BLOCK))).digest()

    run(world.one, talk)


# ── status, limits, changes ──────────────────────────────────────────────────────────────────────


def test_status_shows_sessions_as_long_as_they_stand(world: World, peer: str) -> None:
    daemon, name = place(world, peer)

    async def talk(client: Client) -> None:
        before = binding_of(daemon, name, "Trial").opened
        sessions = [await client.connect("alice", peer, "Trial", initial={"do": "echo"}) for _ in range(3)]
        binding = binding_of(daemon, name, "Trial")
        assert (binding.opened - before, binding.sessions) == (3, 3)
        if peer == world.bob:
            for each in (world.one, world.two):
                (connection,) = each.status().connections
                assert connection.streams == 1 + 3
                assert connection.in_flight == 3
        for session in sessions:
            await session.close()
        await until(lambda: binding_of(daemon, name, "Trial").sessions == 0, "they have ended")
        assert binding_of(daemon, name, "Trial").opened - before == 3

    run(world.one, talk)


def test_one_more_than_the_limit_is_refused_and_there_is_room_again_once_one_has_ended(world: World) -> None:
    async def talk(client: Client) -> None:
        def connect() -> Coroutine[Any, Any, Session]:
            return client.connect("alice", world.bob, "Trial", initial={"do": "echo"}, timeout=30)

        results = await asyncio.gather(*(connect() for _ in range(MAX_SESSIONS_PER_PEER + 1)), return_exceptions=True)
        (refused,) = [result for result in results if not isinstance(result, Session)]
        agrees(refused, e.Overloaded(what="sessions with the peer", limit=MAX_SESSIONS_PER_PEER))
        sessions = [result for result in results if isinstance(result, Session)]
        assert isinstance(await outcome(connect()), e.Overloaded)
        assert await client.call("alice", world.bob, "Trial", request={"do": "return", "value": 7}) == 7
        await sessions.pop().close()
        await until(lambda: world.one.status().connections[0].streams == MAX_SESSIONS_PER_PEER, "one has ended")
        sessions.append(await connect())
        await asyncio.gather(*(session.write(b"x") for session in sessions))
        assert await asyncio.gather(*(session.read() for session in sessions)) == [b"x"] * MAX_SESSIONS_PER_PEER
        await asyncio.gather(*(session.close() for session in sessions))

    run(world.one, talk)


def test_more_than_the_limit_one_after_the_other_is_fine(world: World) -> None:
    async def talk(client: Client) -> None:
        for _ in range(MAX_SESSIONS_PER_PEER + 50):
            async with connected(client, world.bob, "who") as session:
                await session.read()  # and nobody waits for the end

    run(world.one, talk)


def test_taking_an_identity_offline_ends_its_sessions_with_a_word(world: World) -> None:
    id52 = world.two.identity("carol", echo=False)
    give(world.two, "carol", "Trial")

    async def talk(client: Client) -> None:
        session = await client.connect("alice", id52, "Trial", initial={"do": "echo"})
        await session.write(b"x")
        assert await session.read() == b"x"
        reading = asyncio.create_task(session.read())

        def take_offline() -> None:
            with world.two.client() as control:
                control.control(m.SetOnline("carol", False))

        await asyncio.to_thread(take_offline)
        assert isinstance(await outcome(reading), e.ConnectionLost)
        assert isinstance(await outcome(session.write(b"x")), e.ConnectionLost)
        error = await outcome(client.connect("alice", id52, "Trial", initial={"do": "echo"}))
        assert isinstance(error, e.PeerOffline)

    run(world.one, talk)


def test_removing_a_protocol_ends_its_sessions_with_a_word(world: World) -> None:
    peer, daemon, name = world.bob, world.two, "bob"
    give(daemon, name, "Trial", "passing")

    async def talk(client: Client) -> None:
        session = await client.connect("alice", peer, "Trial", "passing", {"do": "echo"})
        await session.write(b"x")
        assert await session.read() == b"x"
        reading = asyncio.create_task(session.read())

        def remove() -> None:
            with daemon.client() as control:
                control.control(m.RemoveProtocol(name, "Trial", "passing"))

        await asyncio.to_thread(remove)
        error = await outcome(reading)
        assert isinstance(error, e.ConnectionLost)
        async with connected(client, peer, "who") as other:  # the identity's other sessions are fine
            assert await read_all(other)

    run(world.one, talk)


def test_a_protocol_that_ends_its_process_loses_its_sessions_and_comes_back(world: World) -> None:
    id52 = world.two.identity("dave", echo=False)
    give(world.two, "dave", "Trial")

    async def talk(client: Client) -> None:
        session = await client.connect("alice", id52, "Trial", initial={"do": "exit"})
        await session.write(b"x")
        began = time.monotonic()
        assert isinstance(await outcome(session.read()), e.ConnectionLost)
        assert time.monotonic() - began < 1
        async with await client.connect("alice", id52, "Trial", initial={"do": "who"}) as again:
            assert await read_all(again)

    run(world.one, talk)
