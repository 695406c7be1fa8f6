"""``SessionDispatcher``: every way in which a session's handler can end, and how the caller sees it."""

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

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
decode = msgspec.msgpack.Decoder(SessionMessage).decode


class Start(msgspec.Struct):
    path: str


Converse = Callable[[Session, Any], Awaitable[Any]]


class DispatcherSetup:
    """Dispatcher with one binding, and the caller's end of each session."""

    def __init__(self, converse: Converse | None) -> None:
        self.sent: dict[bytes, deque[tuple[Message, bytes]]] = {}
        self.is_lost = False
        self.dispatcher = Dispatcher(self._on_answer, self._on_session_message)
        self.binding = ServedBinding("alice", KEY, "Test", "default", {})
        if converse is not None:

            async def annotated(session: Session, initial: Any) -> None:
                await converse(session, initial)

            self.binding.streams = StreamHandler(annotated)
        self.dispatcher.add(self.binding)

    def _on_answer(self, correlation: bytes, header: bytes, payload: Any) -> None:
        self.sent.setdefault(correlation, deque()).append((decode(header), bytes(payload)))

    def _on_session_message(self, correlation: bytes, header: bytes, payload: Any) -> None:
        if self.is_lost:
            raise DaemonBusy(actor="network")
        self._on_answer(correlation, header, payload)

    def open(self, initial: object = None, *, id: bytes = b"1", **changed: Any) -> None:
        fields = {"peer": bytes(KEY), "petname": "bob", "identity": "alice", "protocol": "Test", "instance": "default"}
        payload = initial if isinstance(initial, bytes) else msgspec.msgpack.encode(initial)
        message = DeliverSession(**{**fields, **changed}, deadline_ms=5000, credit=SESSION_WINDOW)
        self.dispatcher.open_session(id, message, payload)

    def send(self, *messages: Message, id: bytes = b"1", payload: bytes = b"") -> None:
        for message in messages:
            self.dispatcher.on_session_message(id, message, payload)

    async def received(self, id: bytes = b"1") -> list[Message]:
        """Return and remove the messages sent under the id, after ten loop iterations."""
        for _ in range(10):
            await asyncio.sleep(0)
        return [message for message, _ in self.sent.pop(id, deque())]

    async def error(self, id: bytes = b"1") -> P2PError:
        (answer,) = await self.received(id)
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


async def test_closes_the_session_when_the_handler_returns() -> None:
    async def says_nothing(session: Session, initial: Any) -> None: ...

    setup = DispatcherSetup(says_nothing)
    setup.open()
    assert setup.dispatcher.in_flight == 1
    assert [type(message) for message in await setup.received()] == [SessionOpened, EndOfStream, StopSending]
    setup.send(Ack(), ResetStream(0))
    assert await setup.received() == []
    assert setup.dispatcher.in_flight == 0


async def test_closes_the_session_after_the_answers_of_the_handler() -> None:
    setup = DispatcherSetup(echo)
    setup.open()
    assert await setup.received() == [SessionOpened(SESSION_WINDOW)]
    setup.send(SessionData(), payload=b"hello")
    setup.send(EndOfStream())
    assert [type(message) for message in await setup.received()] == [Ack, SessionData, EndOfStream]
    setup.send(Ack())
    await setup.received()
    assert setup.dispatcher.in_flight == 0


async def test_passes_peer_and_initial_data_to_the_handler() -> None:
    seen: list[Any] = []

    async def converse(session: Session, start: Start) -> None:
        seen.append((session.peer, session.protocol, session.instance, start.path))

    async def needs_nothing(session: Session) -> None:
        seen.append(session.peer)

    setup = DispatcherSetup(None)
    setup.binding.streams = StreamHandler(converse)
    setup.open({"path": "x"})
    await setup.received()
    setup.binding.streams = StreamHandler(needs_nothing)
    setup.open(b"whatever", id=b"2", petname="")
    await setup.received()
    assert seen == [(Peer(KEY, "bob"), "Test", "default", "x"), Peer(KEY, None)]


async def test_an_error_of_the_system_before_accepting_rejects_the_session() -> None:
    setup = DispatcherSetup(raising(PeerUnknown(peer="carol")))
    setup.open()
    assert isinstance(await setup.error(), PeerUnknown)
    assert setup.dispatcher.in_flight == 0


@pytest.mark.parametrize(
    "error",
    [ValueError("the secret is 42"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), RecursionError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("accept", [False, True])
async def test_another_exception_ends_its_own_session_and_is_not_sent(
    error: BaseException, accept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        setup = DispatcherSetup(raising(error, accept=accept))
        setup.open()
        if accept:
            code = RESET_LOST if isinstance(error, asyncio.CancelledError) else RESET_FAILED
            assert await setup.received() == [SessionOpened(SESSION_WINDOW), ResetStream(code), StopSending(code)]
            setup.send(ResetStream(code))
        else:
            failed = await setup.error()
            assert isinstance(failed, HandlerFailed)
            assert (failed.peer, failed.protocol, failed.reason) == (KEY.id52, "Test", type(error).__name__)
        assert setup.dispatcher.in_flight == 0
        setup.open(id=b"2")  # the process lives on
        assert await setup.received(b"2")
    if not (accept and isinstance(error, asyncio.CancelledError)):
        assert "Traceback" in caplog.text  # the owner's log has it all


async def test_an_exception_inside_async_with_rejects_the_session_too() -> None:
    async def converse(session: Session, initial: Any) -> None:
        async with session:
            raise ApplicationError("No", "in the block")

    async def swallows(session: Session, initial: Any) -> None:
        try:
            async with session:
                raise KeyError
        except KeyError:
            return

    setup = DispatcherSetup(converse)
    setup.open()
    assert await setup.received() == [ApplicationErrorReply("No", "in the block")]
    setup = DispatcherSetup(swallows)
    setup.open()
    assert await setup.received() == [
        SessionOpened(SESSION_WINDOW),
        ResetStream(RESET_FAILED),
        StopSending(RESET_FAILED),
    ]
    setup.send(ResetStream(RESET_FAILED))
    assert setup.dispatcher.in_flight == 0


async def test_a_cancelled_handler_resets_with_the_code_for_lost() -> None:
    setup = DispatcherSetup(echo)
    setup.open()
    setup.send(SessionData(), payload=b"x")
    await setup.received()
    assert not await setup.dispatcher.wait_for_binding(setup.binding, 0.01)
    assert await setup.received() == [ResetStream(RESET_LOST), StopSending(RESET_LOST)]


@pytest.mark.parametrize("accepted", [False, True])
async def test_the_callers_cancellation_reaches_the_handler(accepted: bool) -> None:
    """The same holds if the handler accepts at the same moment: no other message follows."""
    ends: list[BaseException] = []

    async def converse(session: Session, initial: Any) -> None:
        if accepted:
            session.accept()
        try:
            await session.read() if accepted else await asyncio.Event().wait()
        except BaseException as error:
            ends.append(error)
            raise

    setup = DispatcherSetup(converse)
    setup.dispatcher.cancel(b"1")
    setup.open()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    setup.dispatcher.cancel(b"1")
    assert await setup.received() == ([SessionOpened(SESSION_WINDOW)] if accepted else [])
    assert [type(end) for end in ends] == [ConnectionLost if accepted else asyncio.CancelledError]
    assert setup.dispatcher.in_flight == 0
    setup.dispatcher.cancel(b"1")
    setup.send(Cancel(), SessionData(), EndOfStream())


async def test_reading_and_writing_raise_when_the_connection_is_lost() -> None:
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

    setup = DispatcherSetup(converse)
    setup.open("read", id=b"1")
    setup.open("write", id=b"2")
    await setup.received()
    setup.dispatcher.cancel_all()
    setup.is_lost = True
    await setup.received(b"2")
    assert [type(end) for end in ends] == [ConnectionLost, ConnectionLost]
    assert setup.dispatcher.in_flight == 0


async def test_a_handler_that_fails_after_the_peer_is_not_logged_as_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        setup = DispatcherSetup(echo)
        setup.open()
        await setup.received()
        setup.send(ResetStream(5), StopSending(5))
        assert await setup.received() == [ResetStream(5)]
        assert setup.dispatcher.in_flight == 0
    assert caplog.text == ""


async def test_a_cancelled_handler_that_still_runs_disturbs_no_later_session_with_the_same_id() -> None:
    """Correlation ids of the next network process begin at 1 again."""
    go = asyncio.Event()

    async def converse(session: Session, what: Any) -> None:
        session.accept()
        if what == "slow":
            await go.wait()
        await session.write(b"x")

    setup = DispatcherSetup(converse)
    setup.open("slow")
    await setup.received()
    setup.dispatcher.cancel_all()
    setup.open("quick")
    assert [type(message) for message in await setup.received()] == [
        SessionOpened,
        SessionData,
        EndOfStream,
        StopSending,
    ]
    go.set()
    assert await setup.received() == []
    setup.send(Ack(), ResetStream(0))
    assert setup.dispatcher.in_flight == 0


# ── what is not served ───────────────────────────────────────────────────────────────────────────


async def test_the_error_names_the_missing_identity_protocol_or_instance() -> None:
    setup = DispatcherSetup(echo)
    cases: list[tuple[dict[str, Any], type[P2PError]]] = [
        ({"identity": "bob"}, PeerOffline),
        ({"protocol": "Other"}, ProtocolNotFound),
        ({"instance": "other"}, InstanceNotFound),
        ({"peer": b"no key"}, InvalidKey),
    ]
    for changed, expected in cases:
        setup.open(**changed)
        assert type(await setup.error()) is expected
    assert setup.dispatcher.in_flight == 0


async def takes_number(session: Session, number: int) -> None: ...


@pytest.mark.parametrize("payload", [b"", b"\xa1x", b"\xa1\xff", b"\x01\x01", b"\x91" * 60_000])
async def test_rejects_initial_data_that_do_not_fit_the_annotation(payload: bytes) -> None:
    setup = DispatcherSetup(None)
    setup.binding.streams = StreamHandler(takes_number)
    setup.open(payload)
    error = await setup.error()
    assert isinstance(error, BadRequest)
    assert error.protocol == "Test"
    assert setup.dispatcher.in_flight == 0


async def test_rejects_more_sessions_than_the_limit_and_an_id_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastn_p2p_client.serving.session_dispatcher.MAX_SESSIONS_PER_BINDING", 2)
    setup = DispatcherSetup(echo)
    setup.open(id=b"1")
    await setup.received()
    setup.open(id=b"1")
    assert isinstance(await setup.error(), BadMessage)
    setup.open(id=b"2")
    setup.open(id=b"3")
    assert isinstance(await setup.error(b"3"), Overloaded)
    setup.send(ResetStream(1), StopSending(1), id=b"2")
    await setup.received(b"2")
    setup.open(id=b"3")
    assert await setup.received(b"3") == [SessionOpened(SESSION_WINDOW)]
    assert setup.dispatcher.in_flight == 2


async def test_drain_finishes_open_sessions_and_rejects_further_ones() -> None:
    setup = DispatcherSetup(echo)
    setup.open()
    await setup.received()
    draining = asyncio.ensure_future(setup.dispatcher.drain(5))
    await asyncio.sleep(0)
    setup.open(id=b"2")
    assert isinstance(await setup.error(b"2"), PeerOffline)
    setup.send(SessionData(), payload=b"last")
    setup.send(EndOfStream())
    assert [type(message) for message in await setup.received()][-1] is EndOfStream
    assert not draining.done()
    setup.send(Ack())
    assert await draining
    setup.dispatcher.close()


async def test_ignores_messages_of_unknown_sessions() -> None:
    setup = DispatcherSetup(echo)
    for message in (
        SessionData(),
        EndOfStream(),
        Ack(),
        ResetStream(1),
        StopSending(1),
        SessionOpened(5),
        ErrorReply("denied", {}),
    ):
        setup.send(message, id=b"unknown", payload=b"x")
    assert setup.sent == {}
