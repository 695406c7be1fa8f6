"""Connection pool: the choice between several connections to one endpoint, and the end of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections import pool as pool_module
from fastn_p2p_actors.network.connections.network_path import NetworkPath
from fastn_p2p_actors.network.connections.pool import IDLE_TIMEOUT, SUPERSEDED_TIMEOUT, ConnectionPool
from fastn_p2p_actors.network.connections.proven_identities import ProvenIdentities
from fastn_p2p_client.errors import ConnectionLost, PeerUnreachable
from tests.support.two_daemons import until

LOWER, HIGHER = b"\x01" * 32, b"\x02" * 32


class StubConnection:
    def __init__(self, endpoint: bytes, *, outgoing: bool, process: bytes = b"process", at: float = 0.0) -> None:
        self.endpoint = endpoint
        self.outgoing = outgoing
        self.remote_process = process
        self.opened_at = at
        self.address = ""
        self.used_at = asyncio.get_running_loop().time()
        self.in_flight = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.introductions: ProvenIdentities[Any]
        self.end = ""
        self.closed = False
        self.is_silent = self.is_in_question = False
        self.sent = self.received = 0
        self.doubts = 0
        self.last_received_at = 0.0
        self.identities = self
        self.repeated: list[object] = []

    @property
    def answers(self) -> bool:
        return self.ready.done() and not (self.is_silent or self.is_in_question)

    def path_now(self) -> NetworkPath:
        return NetworkPath("direct", self.address, 1)

    def repeat(self, earlier: object) -> None:
        self.repeated.append(earlier)

    def doubt(self) -> None:
        self.doubts += 1

    def question(self) -> None:
        self.is_in_question = True

    def ping(self) -> None:
        """The peer answers at once."""
        self.last_received_at = asyncio.get_running_loop().time()

    def close(self, _code: int, reason: str) -> None:
        self.end = reason


def new_pool(own: bytes, dial: Callable[[Any], Any] | None = None) -> ConnectionPool:
    endpoint = SimpleNamespace(id=own, dial=dial)
    return ConnectionPool(cast(Any, endpoint), cast(Any, None), jitter=lambda: 0.0)


def hold(pool: ConnectionPool, *connections: StubConnection) -> None:
    for connection in connections:
        pool._connections.setdefault(connection.endpoint, []).append(cast(Any, connection))
        pool._count += 1
        connection.introductions = pool.introductions.of(connection.endpoint)


def used(pool: ConnectionPool, endpoint: bytes) -> Any:
    return pool.open_to(endpoint)


def greet(pool: ConnectionPool, connection: StubConnection) -> None:
    connection.ready.set_result(None)
    pool.on_hello(cast(Any, connection))


async def test_news_is_sent_again_over_a_further_connection_with_the_same_process() -> None:
    pool = new_pool(LOWER)
    first, ended, second = (StubConnection(HIGHER, outgoing=True, process=name) for name in (b"new", b"old", b"new"))
    hold(pool, first, ended, second)
    greet(pool, second)
    assert second.repeated == [first]
    assert ended.end


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("own", "other"), [(LOWER, HIGHER), (HIGHER, LOWER)])
async def test_both_sides_choose_what_the_lower_endpoint_has_dialled(
    own: bytes, other: bytes, order: tuple[int, int]
) -> None:
    """In either order of readiness. Identities that one connection has proved are known on the other."""
    pool = new_pool(own)
    both = [StubConnection(other, outgoing=True), StubConnection(other, outgoing=False, at=0.1)]
    hold(pool, *both)
    for each in order:
        greet(pool, both[each])
    chosen = both[0] if own == LOWER else both[1]
    loser = both[1] if own == LOWER else both[0]
    assert used(pool, other) is chosen
    assert chosen.introductions.connection is cast(Any, chosen)
    assert chosen.introductions is loser.introductions
    assert (chosen.end, loser.end) == ("", "")


async def test_a_connection_that_a_moved_peer_has_dialled_is_used_at_once() -> None:
    """Although this daemon has the lower key. The earlier one is in question until its peer answers."""
    pool = new_pool(LOWER)
    earlier, dialled = StubConnection(HIGHER, outgoing=True), StubConnection(HIGHER, outgoing=False, at=60.0)
    hold(pool, earlier, dialled)
    greet(pool, earlier)
    greet(pool, dialled)
    assert used(pool, HIGHER) is dialled
    earlier.is_in_question = False
    pool.on_recovered(cast(Any, earlier))
    assert used(pool, HIGHER) is earlier


async def test_a_ready_connection_is_used_before_one_that_is_not() -> None:
    pool = new_pool(LOWER)
    dialled, accepted = StubConnection(HIGHER, outgoing=True), StubConnection(HIGHER, outgoing=False)
    hold(pool, dialled, accepted)
    greet(pool, accepted)
    assert used(pool, HIGHER) is accepted
    assert accepted.introductions.connection is cast(Any, accepted)


async def test_a_superseded_connection_is_closed_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_ANSWER", 0.01)
    pool = new_pool(LOWER)
    used, idle, busy = (StubConnection(HIGHER, outgoing=each) for each in (True, False, False))
    hold(pool, used, idle, busy)
    for connection in (used, idle, busy):
        greet(pool, connection)
        connection.used_at -= SUPERSEDED_TIMEOUT + 1
    busy.in_flight = 1
    pool._sweep()
    await until(lambda: idle.end, "it is closed")
    assert (used.end, idle.end, busy.end) == ("", "idle", "")
    used.used_at -= IDLE_TIMEOUT
    pool._sweep()
    await until(lambda: used.end, "it is closed")
    assert used.end == "idle"
    pool.close()


@pytest.mark.parametrize("then", ["no answer", "a call arrives"])
async def test_an_idle_connection_stays_while_the_peer_may_have_sent_a_call(
    then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the link is cut, calls of the peer are on their way. Its end would lose them."""
    monkeypatch.setattr(pool_module, "_IDLE_ANSWER", 0.01)
    pool = new_pool(LOWER)
    used, idle = (StubConnection(HIGHER, outgoing=each) for each in (True, False))
    hold(pool, used, idle)
    for connection in (used, idle):
        greet(pool, connection)
    idle.used_at -= SUPERSEDED_TIMEOUT + 1
    if then == "no answer":
        idle.ping = lambda: None  # type: ignore[method-assign]
    pool._sweep()
    if then == "a call arrives":
        idle.used_at = asyncio.get_running_loop().time()
    await asyncio.sleep(0.03)
    assert not idle.end
    pool.close()


async def test_a_restart_of_the_other_side_ends_what_was_before() -> None:
    pool = new_pool(LOWER)
    before = StubConnection(HIGHER, outgoing=True, process=b"before")
    after = StubConnection(HIGHER, outgoing=False, process=b"after")
    hold(pool, before, after)
    greet(pool, before)
    greet(pool, after)
    assert "restarted" in before.end
    pool.remove(cast(Any, before))
    assert used(pool, HIGHER) is after
    assert after.introductions.connection is cast(Any, after)
    pool.remove(cast(Any, after))
    assert after.introductions.connection is None


async def test_a_connection_that_answers_is_used_before_a_silent_one() -> None:
    """The second hello of a process casts doubt on what was there before: it may have moved."""
    pool = new_pool(LOWER)
    before, after = StubConnection(HIGHER, outgoing=True), StubConnection(HIGHER, outgoing=False)
    hold(pool, before, after)
    greet(pool, before)
    greet(pool, after)
    assert (before.doubts, after.doubts) == (1, 1)
    assert used(pool, HIGHER) is before
    before.is_silent = True
    pool.on_silent(cast(Any, before))
    assert after.is_in_question, "an idle one may have the same dead path"
    assert after.introductions.connection is None
    after.is_in_question = False
    pool.on_recovered(cast(Any, after))
    assert after.introductions.connection is cast(Any, after)
    assert pool.silent(HIGHER) == [cast(Any, before)]


async def test_concurrent_callers_share_one_attempt_to_connect() -> None:
    """If all attempts fail, each caller gets the last reason."""
    dialled: list[Any] = []

    async def dial(address: Any) -> Any:
        dialled.append(address)
        await asyncio.sleep(0)
        raise PeerUnreachable(peer="endpoint", reason=f"attempt {len(dialled)}")

    pool = new_pool(LOWER, dial)
    address = SimpleNamespace(endpoint=HIGHER, relays=(), addresses=())
    ends = await asyncio.gather(*(pool.connect(cast(Any, address)) for _ in range(10)), return_exceptions=True)
    assert {type(end) for end in ends} == {PeerUnreachable}
    assert {getattr(end, "reason", "") for end in ends} == {"attempt 3"}
    assert pool.dials == len(dialled) == 3
    assert pool._dials == {}


async def test_a_caller_gets_the_error_of_a_hello_that_does_not_come() -> None:
    pool = new_pool(LOWER)
    connection = StubConnection(HIGHER, outgoing=False)
    hold(pool, connection)
    waiting = asyncio.ensure_future(pool.connect(cast(Any, SimpleNamespace(endpoint=HIGHER))))
    await asyncio.sleep(0)
    connection.ready.set_exception(ConnectionLost(what="the connection"))
    with pytest.raises(ConnectionLost):
        await waiting


@pytest.mark.parametrize("then", ["it is heard again", "another connection answers", "it ends"])
async def test_new_callers_do_not_use_a_silent_connection(then: str) -> None:
    """They wait, together, until one answers. When the last one has ended, the endpoint is dialled."""
    dialled: list[Any] = []

    async def dial(address: Any) -> Any:
        dialled.append(address)
        raise PeerUnreachable(peer="endpoint", reason="it is a stub")

    pool = new_pool(LOWER, dial)
    silent, other = StubConnection(HIGHER, outgoing=True), StubConnection(HIGHER, outgoing=False)
    hold(pool, silent)
    greet(pool, silent)
    silent.is_silent = True
    pool.on_silent(cast(Any, silent))
    assert silent.introductions.connection is None, "the router must not choose it"
    address = cast(Any, SimpleNamespace(endpoint=HIGHER, relays=(), addresses=()))
    waiting = [asyncio.ensure_future(pool.connect(address)) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    assert not dialled
    if then == "it ends":
        pool.remove(cast(Any, silent))
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {PeerUnreachable}
        assert dialled
        return
    if then == "it is heard again":
        silent.is_silent = False
        pool.on_recovered(cast(Any, silent))
    else:
        hold(pool, other)
        greet(pool, other)
    expected = silent if then == "it is heard again" else other
    assert {id(each) for each in await asyncio.gather(*waiting)} == {id(expected)}
    assert silent.introductions.connection is cast(Any, expected)


async def test_a_silent_connection_is_not_superseded() -> None:
    """The link may be cut, and calls in flight wait for it."""
    pool = new_pool(LOWER)
    silent = StubConnection(HIGHER, outgoing=True)
    hold(pool, silent)
    greet(pool, silent)
    silent.is_silent = True
    pool.on_silent(cast(Any, silent))
    silent.used_at -= SUPERSEDED_TIMEOUT + 1
    pool._sweep()
    assert not silent.end
    pool.close()


async def test_a_connection_whose_hello_is_late_counts_as_unanswered() -> None:
    pool = new_pool(LOWER)
    now = asyncio.get_running_loop().time()
    late, fresh = (StubConnection(HIGHER, outgoing=False, at=at) for at in (now - 2, now))
    answering, in_question = (StubConnection(HIGHER, outgoing=False, at=now - 2) for _ in range(2))
    hold(pool, late, fresh, answering, in_question)
    for each in (answering, in_question):
        greet(pool, each)
    in_question.question()
    assert pool.unanswered(HIGHER) == [cast(Any, late), cast(Any, in_question)]
    fresh.address = "192.0.2.1:1"
    assert pool.unanswered(HIGHER, "192.0.2.2:2") == [cast(Any, late), cast(Any, in_question)]
    assert pool.unanswered(HIGHER, "192.0.2.1:1") == [cast(Any, late), cast(Any, fresh), cast(Any, in_question)]


async def test_a_peer_whose_hello_does_not_come_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of the peer get here, and packets to it are lost. Callers share the dial."""
    monkeypatch.setattr(pool_module, "_HELLO_WAIT", 0.01)
    dialled: list[Any] = []

    async def dial(address: Any) -> Any:
        dialled.append(address)
        raise PeerUnreachable(peer="endpoint", reason="it is a stub")

    pool = new_pool(LOWER, dial)
    hold(pool, StubConnection(HIGHER, outgoing=False))
    address = cast(Any, SimpleNamespace(endpoint=HIGHER, relays=(), addresses=()))
    ends = await asyncio.gather(*(pool.connect(address) for _ in range(10)), return_exceptions=True)
    assert {type(end) for end in ends} == {PeerUnreachable}
    assert 3 <= len(dialled) < 30, "each caller would have made three attempts"
