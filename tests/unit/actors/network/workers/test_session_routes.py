"""Routes of sessions to workers: which token counts, for what and for how long, and what a worker may then send."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, cast

import msgspec
import pytest

from fastn_p2p_actors.network.sessions.local_leg import LocalLeg, Offered, daemon_id
from fastn_p2p_actors.network.sessions.relay import SessionRelay
from fastn_p2p_actors.network.workers.session_routes import MAX_ROUTES_OF_PROCESS, SessionRoutes
from fastn_p2p_actors.network.workers.worker_access import WorkerAccess
from fastn_p2p_actors.runtime.mailbox import Sender
from fastn_p2p_client.errors import ConnectionLost, Forbidden, TokenRefused
from fastn_p2p_client.ipc.messages import (
    Ack,
    DataMessage,
    DeliverSession,
    ErrorReply,
    RedeemRoute,
    RouteSession,
    SessionData,
    SessionRoute,
)
from fastn_p2p_client.limits import SESSION_WINDOW
from fastn_p2p_client.worker_token import token_hash

_decode: Final = msgspec.msgpack.Decoder(DataMessage).decode
TOKEN: Final = b"t" * 16


class RoutesSetup:
    """Routes of a network process. It is the mailbox, the listener and all sessions, too.

    Attributes:
        sent: messages that were sent, in order.
        handed: sessions that were handed over, and to whom.
    """

    def __init__(self, seconds: float = 60, address: str = "127.0.0.1:1") -> None:
        self.address, self.fingerprint, self.problem = address, b"f" * 32, ""
        self.access = WorkerAccess(lambda _: None)
        this = cast(Any, self)
        self.routes = SessionRoutes(this, this, self.access, this, seconds)
        self.sent: list[Any] = []
        self.handed: list[tuple[SessionRelay, Sender]] = []
        self._served: dict[tuple[Sender, bytes], SessionRelay] = {}
        self.identity = Sender(1, 1, "bob")

    def send(self, _to: Sender, _id: bytes, header: bytes, *_: object, **__: object) -> None:
        self.sent.append(_decode(header))

    def open(self) -> None: ...
    def on_token(self, _: Sender) -> None: ...

    def served_session(self, sender: Sender, correlation: bytes) -> SessionRelay | None:
        return self._served.get((sender, correlation))

    def hand_over(self, relay: SessionRelay, _: Offered, sender: Sender) -> None:
        self.handed.append((relay, sender))

    def session(self, number: int, sender: Sender | None = None) -> SessionRelay:
        """Return a session of bob's Work that was offered to a process."""
        leg = LocalLeg(cast(Any, self), sender or self.identity, daemon_id(number))
        offer = DeliverSession(b"k" * 32, "", "bob", "Work", "default", 1000, SESSION_WINDOW)
        leg.offered = Offered(offer, b"", time.monotonic() + 1)
        relay = SessionRelay(cast(Any, Opener()), SESSION_WINDOW)
        relay.server = leg
        self._served[leg.key] = relay
        return relay

    def route(self, number: int, token: bytes = TOKEN, sender: Sender | None = None) -> Any:
        before = len(self.sent)
        self.routes.on_route(sender or self.identity, daemon_id(number), RouteSession(token_hash(token)))
        return self.sent[-1] if len(self.sent) > before else None

    def redeem(self, token: bytes = TOKEN, instance: str = "default", sender: Sender | None = None) -> Any:
        worker = sender or Sender(1, -1, is_remote=True)
        self.routes.on_redeem(worker, b"1", RedeemRoute("bob", "Work", instance, token))
        return self.sent[-1].error() if isinstance(self.sent[-1], ErrorReply) else self.sent[-1]


class Opener:
    def receive(self, *_: object) -> None: ...


async def test_a_token_counts_once_and_for_its_session() -> None:
    setup = RoutesSetup()
    relays = [setup.session(number) for number in range(2)]
    for number in range(2):
        assert setup.route(number, bytes([number]) * 16) == SessionRoute("127.0.0.1:1", b"f" * 32)
    worker = Sender(1, -1, is_remote=True)
    assert setup.redeem(b"\x01" * 16, sender=worker) == Ack()
    assert setup.handed == [(relays[1], worker)]
    for token in (b"\x01" * 16, token_hash(b"\x00" * 16), b"", TOKEN):
        assert isinstance(setup.redeem(token), TokenRefused)
    assert (setup.routes.taken, setup.routes.refused, len(setup.routes)) == (1, 4, 1)


async def test_a_token_for_another_binding_is_refused_and_counts_no_more() -> None:
    setup = RoutesSetup()
    setup.session(1)
    setup.route(1)
    assert isinstance(setup.redeem(instance="other"), TokenRefused)
    assert isinstance(setup.redeem(), TokenRefused)
    assert (setup.handed, setup.routes.refused) == ([], 2)


async def test_a_token_expires_and_ends_with_its_session_and_with_the_next_worker_that_is_asked() -> None:
    setup = RoutesSetup(seconds=0)
    setup.session(1)
    setup.route(1)
    async with asyncio.timeout(60):
        while len(setup.routes):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert isinstance(setup.redeem(), TokenRefused)

    setup = RoutesSetup()
    relay = setup.session(1)
    setup.route(1, b"1" * 16)
    setup.route(1, b"2" * 16)
    assert isinstance(setup.redeem(b"1" * 16), TokenRefused)
    assert len(setup.routes) == 1
    relay.fail(ConnectionLost(what="the caller"))
    assert len(setup.routes) == 0
    assert isinstance(setup.redeem(b"2" * 16), TokenRefused)


async def test_no_token_is_accepted_that_could_be_given_to_somebody_else() -> None:
    setup = RoutesSetup()
    setup.session(1)
    setup.session(2)
    program = Sender(1, 7, None)
    setup.session(3, program)
    assert setup.route(9) is None, "there is no such session"
    assert setup.route(3, sender=program) is None, "a program serves itself"
    assert setup.route(1).problem == ""
    assert setup.route(2).problem, "the token is that of another session"
    setup.routes.on_route(setup.identity, daemon_id(2), RouteSession(b"short"))
    assert setup.sent[-1].problem
    assert isinstance(setup.redeem(sender=program), Forbidden)


async def test_one_process_has_a_bounded_number_of_tokens() -> None:
    setup = RoutesSetup()
    for number in range(MAX_ROUTES_OF_PROCESS + 1):
        setup.session(number)
        problem = setup.route(number, number.to_bytes(16)).problem
        assert bool(problem) == (number == MAX_ROUTES_OF_PROCESS)


async def test_without_a_listener_the_answer_says_what_to_set() -> None:
    setup = RoutesSetup(address="")
    setup.session(1)
    assert "fastn-p2p config set worker.listen" in setup.route(1).problem
    setup.problem = "the port is taken"
    assert setup.route(1).problem == "the port is taken"


async def test_the_connection_of_a_session_may_do_nothing_else() -> None:
    setup = RoutesSetup()
    worker = Sender(1, -1, is_remote=True)
    setup.access.check(worker, RedeemRoute("bob", "Work", "default", TOKEN))
    with pytest.raises(Forbidden):
        setup.access.check(worker, SessionData())
    setup.session(1)
    setup.route(1)
    setup.redeem(sender=worker)
    setup.access.check(worker, SessionData())
    for message in (RedeemRoute("bob", "Work", "default", TOKEN), RouteSession(b"")):
        with pytest.raises(Forbidden):
            setup.access.check(worker, message)
