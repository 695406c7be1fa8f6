"""Handshake of sessions with a peer daemon, without QUIC: a stub takes the place of the connection."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections import session_handshake
from fastn_p2p_actors.network.connections.quic_stream import QuicStream
from fastn_p2p_actors.network.connections.session_handshake import IncomingSession, OutgoingSession, SessionCarrier
from fastn_p2p_actors.network.connections.step_budget import ConnectionSteps, StepBudget
from fastn_p2p_actors.network.connections.stream_pacing import StreamPacer
from fastn_p2p_actors.network.sessions.local_leg import LocalLeg
from fastn_p2p_actors.network.sessions.opening import OpeningDeadlines
from fastn_p2p_actors.network.sessions.relay import SessionRelay
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_client.errors import ConnectionLost, Denied
from fastn_p2p_client.ipc.messages import (
    ApplicationErrorReply,
    Cancel,
    EndOfStream,
    ErrorReply,
    Message,
    OpenSession,
    ResetStream,
    SessionData,
    SessionOpened,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import RESET_LOST, SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import Chunk
from tests.support.event_loop import run_pending
from tests.support.quic_streams import FakeStream

KEY = bytes(32)
REQUEST = wire.OpenSession(5, KEY, KEY, "Echo", "default", 1000)
LOST = ErrorReply.of(ConnectionLost(what="the connection to the peer"))


class Connection:
    """Stub of ``ConnectionSessions`` that records the messages to the peer, and those of the leg to the relay."""

    name = "stub"

    def __init__(self) -> None:
        self.pacer = StreamPacer(time.monotonic, lambda: None)
        loop = asyncio.get_running_loop()
        self.steps = ConnectionSteps(StepBudget(loop), lambda: False, loop)
        self.stream = FakeStream()
        self.answers: list[Any] = []
        self.notices: list[Message] = []
        self.data = b""

    @property
    def sessions(self) -> SessionCarrier:
        return cast(SessionCarrier, self)

    def emit(self, header: bytes, message: Message, payload: Chunk) -> None:
        assert header == encode(message)
        self.notices.append(message)
        self.data += bytes(payload)

    def request(
        self, session: OutgoingSession, source: bytes, target: bytes, message: OpenSession, payload: bytes
    ) -> int:
        return 5

    def cancel(self, session: OutgoingSession) -> None:
        self.answers.append("cancel")

    def remove(self, session: OutgoingSession | IncomingSession) -> None:
        self.answers.append("end")

    def reserve_window(self) -> int:
        return SESSION_WINDOW

    def on_attached(self, session: OutgoingSession | IncomingSession, leg: object) -> None:
        pass

    def remove_arrival(self, arrival: IncomingSession) -> None:
        self.answers.append("remove_arrival")

    def answer(
        self,
        arrival: IncomingSession,
        answer: wire.SessionAccepted | wire.ApplicationErrorReply | wire.ErrorReply,
        payload: bytes,
    ) -> None:
        self.answers.append((answer, payload))

    def count(self, sent: int, received: int) -> None:
        pass

    def send(self, *_message: object, credited: bool) -> None:
        """Send a message to a local process."""

    async def open_stream(self, number: int) -> QuicStream:
        self.answers.append(("stream", number))
        return self.stream.halves()


def approach(connection: Connection) -> OutgoingSession:
    message = OpenSession("alice", "bob", "Echo", "default", 1000, 1000)
    return OutgoingSession(connection.sessions, KEY, KEY, message, b"", connection.emit)


def arrival(connection: Connection) -> IncomingSession:
    made = IncomingSession(connection.sessions, REQUEST, b"")
    made.set_output(connection.emit)
    return made


def receive(leg: OutgoingSession | IncomingSession, *messages: Message, payload: bytes = b"") -> None:
    for message in messages:
        leg.receive(encode(message), message, payload)


async def test_the_first_bytes_are_there_before_the_stream_is() -> None:
    connection = Connection()
    ours = approach(connection)
    ours.on_accept(b"hello")
    assert [type(message) for message in connection.notices] == [SessionOpened, SessionData]
    assert connection.data == b"hello"
    receive(ours, SessionData(), payload=b"x")
    await run_pending()
    assert connection.answers == [("stream", 5)]
    assert connection.stream.sending.written == b"\0x"
    ours.close()


async def test_a_session_taken_back_is_cancelled_before_an_answer_and_reset_afterwards() -> None:
    early, late = Connection(), Connection()
    approach(early).close()
    assert early.answers == ["end", "cancel"]
    ours = approach(late)
    ours.on_accept(b"")
    ours.close()
    await run_pending()
    assert late.answers == ["end", ("stream", 5)]
    assert late.stream.sending.written == b"\0"
    assert late.stream.sending.ends == [RESET_LOST]
    assert late.stream.receiving.stopped_with == [RESET_LOST]


async def test_every_answer_reaches_the_relay() -> None:
    denied = Denied(peer="p", protocol="P", instance="i")
    answers: list[tuple[Callable[[OutgoingSession], None], Message]] = [
        (lambda ours: ours.on_application_error("No", "not today", b"data"), ApplicationErrorReply("No", "not today")),
        (lambda ours: ours.on_error(denied), ErrorReply.of(denied)),
        (lambda ours: ours.on_connection_lost(), LOST),
    ]
    for answer, message in answers:
        connection = Connection()
        ours = approach(connection)
        answer(ours)
        assert connection.notices == [message]
        ours.close()
        assert connection.answers == ["end"]


async def test_an_acceptance_takes_along_what_is_said_in_the_same_turn() -> None:
    connection = Connection()
    theirs = arrival(connection)
    receive(theirs, SessionOpened(1000))
    receive(theirs, SessionData(), payload=b"first")
    assert connection.answers == []
    await run_pending()
    assert connection.answers == [(wire.SessionAccepted(5), b"first")]
    assert [type(message) for message in connection.notices] == [WindowUpdate]
    receive(theirs, SessionData(), payload=b"second")
    assert theirs.on_stream(connection.stream.halves())
    connection.stream.receiving.feed(b"\0question")
    await run_pending()
    assert connection.stream.sending.written == b"second"
    assert connection.data == b"question"
    assert "remove_arrival" in connection.answers
    theirs.close()


async def test_no_stream_is_taken_before_there_is_an_acceptance() -> None:
    connection = Connection()
    theirs = arrival(connection)
    assert not theirs.on_stream(connection.stream.halves())
    receive(theirs, ErrorReply.of(Denied(peer="p", protocol="P", instance="i")))
    assert not theirs.on_stream(connection.stream.halves())
    assert [type(answer) for answer, _ in connection.answers] == [wire.ErrorReply]


async def test_a_session_that_ends_before_its_stream_comes_ends_there() -> None:
    connection = Connection()
    theirs = arrival(connection)
    receive(theirs, SessionOpened(1000))
    await run_pending()
    receive(theirs, SessionData(), payload=b"all")
    receive(theirs, EndOfStream(), ResetStream(3))
    theirs.close()
    assert theirs.on_stream(connection.stream.halves())
    await run_pending()
    assert connection.stream.receiving.stopped_with == [RESET_LOST]


async def test_a_stream_that_does_not_come_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_handshake, "_STREAM_TIMEOUT", 0.0)
    connection = Connection()
    theirs = arrival(connection)
    receive(theirs, SessionOpened(1000))
    await run_pending()
    assert [type(message) for message in connection.notices] == [ErrorReply]
    assert "remove_arrival" in connection.answers


async def test_a_request_that_is_taken_back_is_not_answered() -> None:
    connection = Connection()
    theirs = arrival(connection)
    theirs.on_cancel()
    assert connection.notices == [Cancel()]
    theirs.close()
    receive(theirs, SessionOpened(1000))
    await run_pending()
    assert connection.answers == ["remove_arrival", "end"]


async def open_for_a_peer(connection: Connection) -> tuple[SessionRelay, IncomingSession]:
    session = IncomingSession(connection.sessions, REQUEST, b"")
    relay = SessionRelay(session, SESSION_WINDOW)
    session.set_output(relay.from_opener)
    relay.at_end.append(session.close)
    relay.server = LocalLeg(cast(Any, connection), cast(Any, None), b"")
    OpeningDeadlines(cast(Any, None)).start(relay, 1000)
    return relay, session


async def open_for_a_program(connection: Connection) -> tuple[SessionRelay, OutgoingSession]:
    relay = SessionRelay(LocalLeg(cast(Any, connection), cast(Any, None), b""), SESSION_WINDOW)
    message = OpenSession("alice", "bob", "Echo", "default", 1000, 1000)
    session = OutgoingSession(connection.sessions, KEY, KEY, message, b"", relay.from_server)
    relay.server = session
    relay.at_end.append(session.close)
    OpeningDeadlines(cast(Any, None)).start(relay, 1000)
    return relay, session


def accept(relay: SessionRelay) -> None:
    relay.from_server(encode(SessionOpened(1000)), SessionOpened(1000), b"")


@pytest.mark.parametrize("phase", ["requested", "accepted", "with a stream"])
@pytest.mark.parametrize("opened_by", ["a peer", "a program"])
@pytest.mark.parametrize("ending", ["the connection", "the program", "an error"])
async def test_a_session_that_has_ended_is_not_kept(phase: str, opened_by: str, ending: str) -> None:
    """No reference cycle keeps it until the next full garbage collection, at whatever point it ends."""
    connection = Connection()
    relay: SessionRelay
    session: IncomingSession | OutgoingSession
    if opened_by == "a peer":
        relay, incoming = await open_for_a_peer(connection)
        if phase != "requested":
            accept(relay)
            await run_pending()
        if phase == "with a stream":
            assert incoming.on_stream(connection.stream.halves())
        session = incoming
        del incoming
    else:
        relay, session = await open_for_a_program(connection)
        if phase != "requested":
            session.on_accept(b"")
        if phase == "with a stream":
            await run_pending()
    await run_pending()
    kept = weakref.ref(session)
    gc.collect()
    gc.disable()
    try:
        if ending == "an error":
            relay.fail(ConnectionLost(what="the program"))
        elif ending == "the program" and opened_by == "a peer":
            relay.on_server_lost()
        elif ending == "the program":
            relay.on_opener_lost()
        session.on_connection_lost()  # until then, an accepted session waits for the peer's stream, to end it
        assert relay.done
        del session, relay
        await run_pending()
        await run_pending()
        assert kept() is None
    finally:
        gc.enable()
