"""Every way in which a session's handler can end, and what whoever has opened it is told."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fastn_p2p_client.errors import (
    ApplicationError,
    BadMessage,
    BadRequest,
    ConnectionLost,
    DaemonBusy,
    HandlerFailed,
    InstanceNotFound,
    InvalidKey,
    Overloaded,
    P2PError,
    PeerOffline,
    PeerUnknown,
    ProtocolNotFound,
    StreamReset,
)
from fastn_p2p_client.ipc.messages import (
    Ack,
    ApplicationErrorReply,
    Cancel,
    DeliverSession,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    SessionMessage,
    SessionOpened,
    StopSending,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import RESET_FAILED, RESET_LOST, SESSION_WINDOW
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.serving.binding import ServedBinding
from fastn_p2p_client.serving.dispatcher import Dispatcher
from fastn_p2p_client.serving.handlers import StreamHandler
from fastn_p2p_client.session.session import Session
from tests.support.scenario import play

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
decode = msgspec.msgpack.Decoder(SessionMessage).decode


class Start(msgspec.Struct):
    path: str


Converse = Callable[[Session, Any], Awaitable[Any]]


class Bench:
    """A dispatcher with one binding, and for each session that is opened the other end of it."""

    def __init__(self, converse: Converse | None) -> None:
        self.said: dict[bytes, deque[tuple[Message, bytes]]] = {}
        self.broken = False
        self.dispatcher = Dispatcher(self._hear, self._hear_part)
        self.binding = ServedBinding("alice", KEY, "Test", "default", {})
        if converse is not None:

            async def annotated(session: Session, initial: Any) -> None:
                await converse(session, initial)

            self.binding.streams = StreamHandler(annotated)
        self.dispatcher.add(self.binding)

    def _hear(self, correlation: bytes, header: bytes, payload: Any) -> None:
        self.said.setdefault(correlation, deque()).append((decode(header), bytes(payload)))

    def _hear_part(self, correlation: bytes, header: bytes, payload: Any) -> None:
        if self.broken:
            raise DaemonBusy(actor="network")
        self._hear(correlation, header, payload)

    def offer(self, initial: object = None, *, id: bytes = b"1", **changed: Any) -> None:
        fields = {"peer": bytes(KEY), "petname": "bob", "identity": "alice", "protocol": "Test", "instance": "default"}
        payload = initial if isinstance(initial, bytes) else msgspec.msgpack.encode(initial)
        message = DeliverSession(**{**fields, **changed}, deadline_ms=5000, credit=SESSION_WINDOW)
        self.dispatcher.open_session(id, message, payload)

    def say(self, *messages: Message, id: bytes = b"1", payload: bytes = b"") -> None:
        for message in messages:
            self.dispatcher.on_session_message(id, message, payload)

    async def heard(self, id: bytes = b"1") -> list[Message]:
        """All that was said under the id, once nothing more comes."""
        for _ in range(10):
            await asyncio.sleep(0)
        return [message for message, _ in self.said.pop(id, deque())]

    async def error(self, id: bytes = b"1") -> P2PError:
        (answer,) = await self.heard(id)
        assert isinstance(answer, ErrorReply)
        return answer.error()


def raising(error: BaseException, *, accept: bool = False) -> Converse:
    async def converse(session: Session, initial: Any) -> None:
        if accept:
            session.accept()
        raise error

    return converse


async def echo(session: Session, initial: Any) -> None:
    async for chunk in session:
        await session.write(chunk)


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def test_a_handler_that_returns_closes_its_session() -> None:
    async def says_nothing(session: Session, initial: Any) -> None: ...

    async def scenario() -> None:
        bench = Bench(says_nothing)
        bench.offer()
        assert bench.dispatcher.in_flight == 1
        assert [type(message) for message in await bench.heard()] == [SessionOpened, EndOfStream, StopSending]
        bench.say(Ack(), ResetStream(0))
        assert await bench.heard() == []
        assert bench.dispatcher.in_flight == 0

    async def echoes() -> None:
        bench = Bench(echo)
        bench.offer()
        assert await bench.heard() == [SessionOpened(SESSION_WINDOW)]
        bench.say(SessionData(), payload=b"hello")
        bench.say(EndOfStream())
        assert [type(message) for message in await bench.heard()] == [Ack, SessionData, EndOfStream]
        bench.say(Ack())
        await bench.heard()
        assert bench.dispatcher.in_flight == 0

    play(scenario)
    play(echoes)


def test_a_handler_is_told_who_is_there_and_what_was_said() -> None:
    seen: list[Any] = []

    async def converse(session: Session, start: Start) -> None:
        seen.append((session.peer, session.protocol, session.instance, start.path))

    async def needs_nothing(session: Session) -> None:
        seen.append(session.peer)

    async def scenario() -> None:
        bench = Bench(None)
        bench.binding.streams = StreamHandler(converse)
        bench.offer({"path": "x"})
        await bench.heard()
        bench.binding.streams = StreamHandler(needs_nothing)
        bench.offer(b"whatever", id=b"2", petname="")
        await bench.heard()
        assert seen == [(Peer(KEY, "bob"), "Test", "default", "x"), Peer(KEY, None)]

    play(scenario)


def test_before_it_accepts_a_handler_says_no_by_raising() -> None:
    async def scenario() -> None:
        bench = Bench(raising(ApplicationError("TooLate", "come back tomorrow", {"hours": 12})))
        bench.offer()
        for _ in range(5):
            await asyncio.sleep(0)
        ((answer, payload),) = bench.said[b"1"]
        assert answer == ApplicationErrorReply("TooLate", "come back tomorrow")
        assert msgspec.msgpack.decode(payload) == {"hours": 12}
        assert bench.dispatcher.in_flight == 0
        bench = Bench(raising(PeerUnknown(peer="carol")))
        bench.offer()
        assert isinstance(await bench.error(), PeerUnknown)
        assert bench.dispatcher.in_flight == 0

    play(scenario)


@pytest.mark.parametrize(
    "error",
    [ValueError("the secret is 42"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), RecursionError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("accept", [False, True])
def test_anything_else_costs_its_own_session_and_stays_secret(
    error: BaseException, accept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        bench = Bench(raising(error, accept=accept))
        bench.offer()
        if accept:
            code = RESET_LOST if isinstance(error, asyncio.CancelledError) else RESET_FAILED
            assert await bench.heard() == [SessionOpened(SESSION_WINDOW), ResetStream(code), StopSending(code)]
            bench.say(ResetStream(code))
        else:
            failed = await bench.error()
            assert isinstance(failed, HandlerFailed)
            assert (failed.peer, failed.protocol, failed.reason) == (KEY.id52, "Test", type(error).__name__)
        assert bench.dispatcher.in_flight == 0
        bench.offer(id=b"2")  # the process lives on
        assert await bench.heard(b"2")

    with caplog.at_level(logging.ERROR):
        play(scenario)
    if not (accept and isinstance(error, asyncio.CancelledError)):
        assert "Traceback" in caplog.text  # the owner's log has it all


def test_an_exception_in_the_sessions_own_block_is_still_a_no() -> None:
    async def converse(session: Session, initial: Any) -> None:
        async with session:
            raise ApplicationError("No", "in the block")

    async def swallows(session: Session, initial: Any) -> None:
        try:
            async with session:
                raise KeyError
        except KeyError:
            return

    async def scenario() -> None:
        bench = Bench(converse)
        bench.offer()
        assert await bench.heard() == [ApplicationErrorReply("No", "in the block")]
        bench = Bench(swallows)
        bench.offer()
        assert await bench.heard() == [
            SessionOpened(SESSION_WINDOW),
            ResetStream(RESET_FAILED),
            StopSending(RESET_FAILED),
        ]
        bench.say(ResetStream(RESET_FAILED))
        assert bench.dispatcher.in_flight == 0

    play(scenario)


def test_a_reset_before_anything_else_is_a_session_that_was_reset() -> None:
    async def converse(session: Session, initial: Any) -> None:
        session.reset(7)

    async def scenario() -> None:
        bench = Bench(converse)
        bench.offer()
        assert await bench.heard() == [SessionOpened(SESSION_WINDOW), ResetStream(7), StopSending(7)]
        bench.say(ResetStream(7))
        assert bench.dispatcher.in_flight == 0

    play(scenario)


def test_a_cancelled_handler_resets_with_the_code_of_what_is_lost() -> None:
    async def scenario() -> None:
        bench = Bench(echo)
        bench.offer()
        bench.say(SessionData(), payload=b"x")
        await bench.heard()
        assert not await bench.dispatcher.wait_for_binding(bench.binding, 0.01)
        assert await bench.heard() == [ResetStream(RESET_LOST), StopSending(RESET_LOST)]

    play(scenario)


@pytest.mark.parametrize("accepted", [False, True])
def test_when_nobody_waits_any_more_the_handler_learns_it(accepted: bool) -> None:
    """Also when it accepts in the very moment: the two words cross, and nobody else will say anything."""
    ends: list[BaseException] = []

    async def converse(session: Session, initial: Any) -> None:
        if accepted:
            session.accept()
        try:
            await session.read() if accepted else await asyncio.Event().wait()
        except BaseException as error:
            ends.append(error)
            raise

    async def scenario() -> None:
        bench = Bench(converse)
        bench.dispatcher.cancel(b"1")
        bench.offer()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        bench.dispatcher.cancel(b"1")
        assert await bench.heard() == ([SessionOpened(SESSION_WINDOW)] if accepted else [])
        assert [type(end) for end in ends] == [ConnectionLost if accepted else asyncio.CancelledError]
        assert bench.dispatcher.in_flight == 0
        bench.dispatcher.cancel(b"1")
        bench.say(Cancel(), SessionData(), EndOfStream())

    play(scenario)


def test_when_the_way_is_lost_reading_and_writing_say_so() -> None:
    ends: list[BaseException] = []

    async def converse(session: Session, what: Any) -> None:
        try:
            if what == "read":
                await session.read()
            else:
                await session.write(bytes(2 * SESSION_WINDOW))
        except P2PError as error:
            ends.append(error)
            raise

    async def scenario() -> None:
        bench = Bench(converse)
        bench.offer("read", id=b"1")
        bench.offer("write", id=b"2")
        await bench.heard()
        bench.dispatcher.cancel_all()
        bench.broken = True
        await bench.heard(b"2")
        assert [type(end) for end in ends] == [ConnectionLost, ConnectionLost]
        assert bench.dispatcher.in_flight == 0

    play(scenario)


def test_a_handler_that_fails_because_the_other_side_did_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bench = Bench(echo)
        bench.offer()
        await bench.heard()
        bench.say(ResetStream(5), StopSending(5))
        assert await bench.heard() == [ResetStream(5)]
        assert bench.dispatcher.in_flight == 0

    with caplog.at_level(logging.WARNING):
        play(scenario)
    assert caplog.text == ""


def test_a_handler_that_has_not_noticed_yet_disturbs_no_later_session_with_the_same_id() -> None:
    """The next network process counts from the beginning again."""
    go = asyncio.Event()

    async def converse(session: Session, what: Any) -> None:
        session.accept()
        if what == "slow":
            await go.wait()
        await session.write(b"x")

    async def scenario() -> None:
        bench = Bench(converse)
        bench.offer("slow")
        await bench.heard()
        bench.dispatcher.cancel_all()
        bench.offer("quick")
        assert [type(message) for message in await bench.heard()] == [
            SessionOpened,
            SessionData,
            EndOfStream,
            StopSending,
        ]
        go.set()
        assert await bench.heard() == []
        bench.say(Ack(), ResetStream(0))
        assert bench.dispatcher.in_flight == 0

    play(scenario)


# ── what is not served ───────────────────────────────────────────────────────────────────────────


def test_who_is_not_there_is_said_precisely() -> None:
    async def scenario() -> None:
        bench = Bench(echo)
        cases: list[tuple[dict[str, Any], type[P2PError]]] = [
            ({"identity": "bob"}, PeerOffline),
            ({"protocol": "Other"}, ProtocolNotFound),
            ({"instance": "other"}, InstanceNotFound),
            ({"peer": b"no key"}, InvalidKey),
        ]
        for changed, expected in cases:
            bench.offer(**changed)
            assert type(await bench.error()) is expected
        assert bench.dispatcher.in_flight == 0

    play(scenario)


def test_a_protocol_without_sessions_says_so() -> None:
    async def scenario() -> None:
        bench = Bench(None)
        bench.offer()
        assert isinstance(await bench.error(), BadRequest)
        assert bench.dispatcher.in_flight == 0

    play(scenario)


async def takes_number(session: Session, number: int) -> None: ...


@pytest.mark.parametrize("payload", [b"", b"\xa1x", b"\xa1\xff", b"\x01\x01", b"\x91" * 60_000])
def test_initial_data_that_does_not_fit_never_reaches_the_handler(payload: bytes) -> None:
    async def scenario() -> None:
        bench = Bench(None)
        bench.binding.streams = StreamHandler(takes_number)
        bench.offer(payload)
        error = await bench.error()
        assert isinstance(error, BadRequest)
        assert error.protocol == "Test"
        assert bench.dispatcher.in_flight == 0

    play(scenario)


def test_more_than_the_limit_and_an_id_that_stands_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p_client.serving.session_dispatcher.MAX_SESSIONS_PER_BINDING", 2)

    async def scenario() -> None:
        bench = Bench(echo)
        bench.offer(id=b"1")
        await bench.heard()
        bench.offer(id=b"1")
        assert isinstance(await bench.error(), BadMessage)
        bench.offer(id=b"2")
        bench.offer(id=b"3")
        assert isinstance(await bench.error(b"3"), Overloaded)
        bench.say(ResetStream(1), StopSending(1), id=b"2")
        await bench.heard(b"2")
        bench.offer(id=b"3")
        assert await bench.heard(b"3") == [SessionOpened(SESSION_WINDOW)]
        assert bench.dispatcher.in_flight == 2

    play(scenario)


def test_draining_lets_sessions_end_and_takes_no_more() -> None:
    async def scenario() -> None:
        bench = Bench(echo)
        bench.offer()
        await bench.heard()
        draining = asyncio.ensure_future(bench.dispatcher.drain(5))
        await asyncio.sleep(0)
        bench.offer(id=b"2")
        assert isinstance(await bench.error(b"2"), PeerOffline)
        bench.say(SessionData(), payload=b"last")
        bench.say(EndOfStream())
        assert [type(message) for message in await bench.heard()][-1] is EndOfStream
        assert not draining.done()
        bench.say(Ack())
        assert await draining
        bench.dispatcher.close()

    play(scenario)


def test_an_answer_to_nothing_is_dropped() -> None:
    async def scenario() -> None:
        bench = Bench(echo)
        for message in (
            SessionData(),
            EndOfStream(),
            Ack(),
            ResetStream(1),
            StopSending(1),
            SessionOpened(5),
            ErrorReply("denied", {}),
        ):
            bench.say(message, id=b"nobody", payload=b"x")
        assert bench.said == {}

    play(scenario)


def test_what_the_opener_sees_of_a_reset_is_typed() -> None:
    """The whole way, as the opener's own session tells it."""

    async def converse(session: Session, initial: Any) -> None:
        await session.read()
        session.reset(42)

    async def scenario() -> None:
        bench = Bench(converse)
        opener = Session(
            lambda header, payload: bench.say(decode(header), payload=bytes(payload)),
            protocol="Test",
            instance="default",
        )

        async def pump() -> None:
            while not opener.is_over:
                queue = bench.said.get(b"1", deque())
                while queue:
                    opener.on_message(*queue.popleft())
                await asyncio.sleep(0)

        pumping = asyncio.create_task(pump())
        bench.offer()
        await opener.write(b"x")
        with pytest.raises(StreamReset) as caught:
            await opener.read()
        assert caught.value.reset_code == 42
        await pumping
        assert bench.dispatcher.in_flight == 0

    play(scenario)
