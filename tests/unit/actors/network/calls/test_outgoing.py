"""Calls and sessions of local programs to a peer, with stubs for mailbox, address book, router and connection."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.network.calls.earlier_attempts import EarlierAttempt
from fastn_p2p_actors.network.calls.outgoing import OutgoingCalls
from fastn_p2p_actors.network.connections.network_path import LOCAL, NetworkPath
from fastn_p2p_actors.network.connections.payload_memory import PayloadMemory
from fastn_p2p_actors.network.discovery.targets import TargetFinder
from fastn_p2p_actors.network.serving.registration_grace import RegistrationGrace
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.sessions.manager import SessionManager
from fastn_p2p_actors.network.wire.messages import ANOTHER_START, UNKNOWN_START
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import HomeAway, InstanceNotFound, P2PError, PeerUnreachable, ProtocolNotFound
from fastn_p2p_client.ipc.messages import Call, ErrorReply, OpenSession, Reply, encode
from tests.support.event_loop import run_pending
from tests.support.signer import Signer

ALICE, BOB = Signer("alice"), Signer("bob")


class StubNetwork:
    """Stub of mailbox, address book, router and the connection that the router finds."""

    closed = False
    endpoint = b"endpoint of bob"
    daemon_start = b"start"
    daemon_started_ms = 1000

    def __init__(self) -> None:
        self.found = asyncio.Event()
        self.asked: list[bool] = []
        """For each request that was sent: true if its source was online."""
        self.earlier: list[bytes] = []
        """For each call that was sent: start of another daemon that may have executed it."""
        self.registry = Registry()
        self.grace = RegistrationGrace()
        self.sessions = self.requests = self
        anything = cast(Any, self)
        self.payloads = PayloadMemory()
        self.targets = TargetFinder(self.registry, anything, self.grace)
        self.calls = OutgoingCalls(anything, self.targets, anything, self.payloads)
        self.answers: list[tuple[bytes, object]] = []
        self.others = True
        self.returned: StubNetwork | None = None
        self.opened = SessionManager(
            anything, self.registry, self.targets, anything, self.grace, self.payloads, anything
        )

    def come_online(self) -> OnlineIdentity:
        identity = OnlineIdentity("alice", ALICE.key, Sender(0, 0))
        self.registry.add_identity(identity)
        self.grace.on_registration()
        return identity

    def parse_peer(self, peer: str, _protocol: str = "", _instance: str = "") -> bytes:
        return bytes(BOB.key)

    def open_to(self, target: bytes) -> StubNetwork | None:
        return self if self.found.is_set() else None

    async def connect(self, target: bytes, peer: str, search: object = None) -> StubNetwork:
        await self.found.wait()
        return self

    async def connect_to(self, target: bytes, endpoint: bytes) -> StubNetwork:
        if self.returned is None:
            raise PeerUnreachable(peer="bob", reason="no answer")
        return self.returned

    async def connect_beside(self, target: bytes, endpoints: frozenset[bytes]) -> StubNetwork:
        assert self.endpoint not in endpoints
        return self

    def is_silent(self, endpoint: bytes) -> bool:
        return True

    def has_others(self, target: bytes, endpoint: bytes) -> bool:
        return self.others

    def answer(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        reply = msgspec.msgpack.decode(header, type=ErrorReply)
        self.answers.append((correlation, reply.code))

    def retry(self, attempt: int, sent_ms: int = 0) -> None:
        """Send a retried call over the connection that is open."""
        call = Call("alice", "bob", "Echo", "default", 5000, "", b"call id", attempt, sent_ms=sent_ms)
        self.calls.on_call(Sender(0, 0), b"1", call, b"")

    def path(self) -> NetworkPath:
        return LOCAL

    def name_of(self, key: bytes) -> str:
        return "bob"

    def request(self, *arguments: Any) -> int:
        return self.ask()

    def call(self, *arguments: Any) -> int:
        self.earlier.append(arguments[-1])
        return self.ask()

    def ask(self, *arguments: Any) -> int:
        self.asked.append(self.registry.by_key(bytes(ALICE.key)) is not None)
        return 1

    def begin(self, kind: str) -> None:
        if kind == "call":
            self.calls.on_call(Sender(0, 0), b"1", Call("alice", "bob", "Echo", "default", 5000), b"")
        else:
            self.opened.on_open(Sender(0, 0), b"1", OpenSession("alice", "bob", "Echo", "default", 5000, 1000), b"")


@pytest.mark.parametrize("kind", ["call", "session"])
async def test_waits_for_a_calling_identity_that_went_offline_while_connecting(kind: str) -> None:
    """Without the identity, the daemon has no proof for the peer."""
    network = StubNetwork()
    identity = network.come_online()
    network.begin(kind)
    await run_pending()
    network.registry.remove_identity(identity)
    network.found.set()
    await run_pending()
    assert network.asked == []
    network.come_online()
    await run_pending()
    assert network.asked == [True]
    network.targets.close()
    network.calls.close()
    network.opened.close()


@pytest.mark.parametrize("kind", ["call", "session"])
async def test_sends_at_once_if_the_calling_identity_stays_online(kind: str) -> None:
    network = StubNetwork()
    network.come_online()
    network.begin(kind)
    network.found.set()
    await run_pending()
    assert network.asked == [True]
    network.targets.close()
    network.calls.close()
    network.opened.close()


@pytest.mark.parametrize("returns", [True, False])
async def test_sends_a_retried_call_to_the_daemon_that_may_have_executed_it(returns: bool) -> None:
    """If that does not come back, another one is asked, which does not execute it unless both share claims."""
    network = StubNetwork()
    network.come_online()
    network.found.set()
    first = StubNetwork()
    first.endpoint = b"first endpoint"
    first.daemon_start = b"first start"
    first.come_online()
    if returns:
        network.returned = first
    network.calls.attempts.note(
        bytes(BOB.key),
        b"call id",
        EarlierAttempt(first.endpoint, first.daemon_start),
        asyncio.get_running_loop().time() + 5,
    )
    network.retry(attempt=1)
    await run_pending()
    assert network.earlier == ([] if returns else [b"first start"])
    assert first.earlier == ([b""] if returns else [])
    assert network.answers == []
    network.targets.close()
    network.calls.close()


@pytest.mark.parametrize(
    ("others", "start", "earlier"),
    [(True, b"start", [ANOTHER_START]), (False, b"start", [b""]), (True, b"", []), (False, b"", [b""])],
)
async def test_says_that_another_daemon_may_have_executed_a_call_of_which_nothing_is_known(
    others: bool, start: bytes, earlier: list[bytes]
) -> None:
    """A daemon of an older version would execute it, and does not get it."""
    network = StubNetwork()
    network.come_online()
    network.found.set()
    network.others = others
    network.daemon_start = start
    network.retry(attempt=1)
    await run_pending()
    assert network.earlier == earlier
    assert network.answers == ([] if earlier else [(b"1", "outcome-unknown")])
    network.targets.close()
    network.calls.close()


@pytest.mark.parametrize(
    ("start", "earlier"),
    [(b"start", b""), (b"earlier", b"earlier"), (b"", UNKNOWN_START)],
    ids=["no", "yes", "unknown"],
)
async def test_says_that_the_daemon_was_restarted_since_an_earlier_attempt(start: bytes, earlier: bytes) -> None:
    network = StubNetwork()
    network.come_online()
    network.found.set()
    attempt = EarlierAttempt(network.endpoint, start)
    network.calls.attempts.note(bytes(BOB.key), b"call id", attempt, asyncio.get_running_loop().time() + 5)
    network.retry(attempt=1)
    assert network.earlier == [earlier]
    network.targets.close()
    network.calls.close()


@pytest.mark.parametrize(("sent_ms", "earlier"), [(0, b"earlier"), (999, b"earlier"), (1001, b"")])
async def test_an_attempt_that_was_sent_after_the_restart_was_not_executed_before(sent_ms: int, earlier: bytes) -> None:
    """It went over a connection to the daemon that was killed."""
    network = StubNetwork()
    network.come_online()
    network.found.set()
    attempt = EarlierAttempt(network.endpoint, b"earlier")
    network.calls.attempts.note(bytes(BOB.key), b"call id", attempt, asyncio.get_running_loop().time() + 5)
    network.retry(attempt=1, sent_ms=sent_ms)
    assert network.earlier == [earlier]
    network.targets.close()
    network.calls.close()


@pytest.mark.parametrize(("sent_ms", "earlier"), [(0, b""), (999, UNKNOWN_START), (1001, b"")])
async def test_says_that_the_daemon_was_started_after_an_attempt_of_which_nothing_is_known(
    sent_ms: int, earlier: bytes
) -> None:
    network = StubNetwork()
    network.come_online()
    network.found.set()
    network.others = False
    network.retry(attempt=1, sent_ms=sent_ms)
    assert network.earlier == [earlier]
    network.targets.close()
    network.calls.close()


async def test_sends_no_retried_call_to_another_daemon_that_is_of_an_older_version() -> None:
    """It would execute it. Both are of one here, so that neither says which start it is."""
    network = StubNetwork()
    network.come_online()
    network.found.set()
    network.daemon_start = b""
    attempt = EarlierAttempt(b"first endpoint", b"")
    network.calls.attempts.note(bytes(BOB.key), b"call id", attempt, asyncio.get_running_loop().time() + 5)
    network.retry(attempt=1)
    await run_pending()
    assert network.earlier == []
    assert network.answers == [(b"1", "outcome-unknown")]
    network.targets.close()
    network.calls.close()


class RefusingNetwork(StubNetwork):
    """Peer daemon that refuses calls until ``refusal`` is None, and other daemons that serve the binding."""

    several: frozenset[bytes] = frozenset()

    def __init__(self, refusal: P2PError | None) -> None:
        super().__init__()
        self.refusal = refusal
        self.sent: list[tuple[bytes, bytes]] = []
        """Endpoint and payload of each call that was sent."""
        self.waiting: list[Any] = []
        self.other: RefusingNetwork | None = None
        self.replies: list[bytes] = []
        self.is_waiting = False

    def call(self, *arguments: Any) -> int:
        waiting = arguments[0]
        payload = next(each for each in arguments if isinstance(each, bytes) and each[:4] == b"data")
        self.sent.append((self.endpoint, payload))
        self.waiting.append(waiting)
        if not self.is_waiting:
            asyncio.get_running_loop().call_soon(self.respond, waiting)
        return 1

    def respond(self, waiting: Any) -> None:
        waiting.on_reply(b"") if self.refusal is None else waiting.on_error(self.refusal)

    async def connect_to(self, target: bytes, endpoint: bytes) -> StubNetwork:
        assert self.other is not None
        return self.other

    async def connect_beside(self, target: bytes, endpoints: frozenset[bytes]) -> StubNetwork:
        assert self.other is not None
        return self.other

    def is_silent(self, endpoint: bytes) -> bool:
        return False

    def answer(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.replies.append(header)

    def send_large(self, size: int = 100_000) -> None:
        self.calls.on_call(Sender(0, 0), b"1", Call("alice", "bob", "Echo", "default", 5000), b"data".ljust(size))


_HOME = b"h" * 32


@pytest.mark.parametrize(
    "refusal",
    [
        HomeAway(peer="bob", protocol="Echo", instance="default", daemon="x", endpoint=_HOME.hex(), term=1, seconds=0),
        ProtocolNotFound(peer="bob", protocol="Echo"),
        InstanceNotFound(peer="bob", protocol="Echo", instance="default"),
    ],
    ids=["home-away", "protocol-not-found", "instance-not-found"],
)
async def test_a_large_call_goes_to_another_daemon_before_it_is_known_that_there_are_several(refusal: P2PError) -> None:
    network = RefusingNetwork(refusal)
    other = network.other = RefusingNetwork(None)
    other.endpoint = _HOME
    network.come_online()
    network.found.set()
    network.send_large()
    await run_pending()
    assert [endpoint for endpoint, _ in network.sent + other.sent] == [network.endpoint, _HOME]
    assert network.sent[0][1] == other.sent[0][1]
    assert network.replies == [encode(Reply())]
    assert network.payloads.programs.total == 0
    network.targets.close()
    network.calls.close()


async def test_large_payloads_are_not_kept_for_a_daemon_that_has_served_the_binding() -> None:
    """Their memory is not counted twice, once for the connection and once for another daemon."""
    network = RefusingNetwork(None)
    network.come_online()
    network.found.set()
    network.send_large()
    await run_pending()
    assert len(network.replies) == 1
    network.is_waiting = True
    network.send_large()
    await run_pending()
    assert network.payloads.programs.total == 0
    network.waiting[-1].on_error(ProtocolNotFound(peer="bob", protocol="Echo"))  # it serves the binding no more
    network.send_large()
    await run_pending()
    assert network.payloads.programs.total >= 100_000
    network.waiting[-1].on_reply(b"")
    assert network.payloads.programs.total == 0
    network.targets.close()
    network.calls.close()
