"""Sessions that a program opens: one outcome for each, nothing left of them, and a word to the daemon."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_client.errors import (
    ApplicationError,
    BadReply,
    ConnectionLost,
    DaemonBusy,
    DeadlineExceeded,
    Denied,
    Overloaded,
)
from fastn_p2p_client.ipc.messages import (
    ApplicationErrorReply,
    Cancel,
    DataRequest,
    EndOfStream,
    ErrorReply,
    Message,
    OpenSession,
    ResetStream,
    SessionData,
    SessionOpened,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.ipc.request_channel import RequestChannel
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import SESSION_WINDOW
from fastn_p2p_client.session import client_sessions
from fastn_p2p_client.session.client_sessions import ClientSessions
from fastn_p2p_client.session.session import Session
from tests.support.event_loop import run_pending

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")
OPEN = OpenSession("alice", "bob", "Test", "default", 5000, SESSION_WINDOW)
OPENED = SessionOpened(SESSION_WINDOW, bytes(KEY), "bob")
decode = msgspec.msgpack.Decoder(DataRequest).decode


class FakeChannel:
    """Channel that records what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Message]] = []
        self.down = False

    def new_id(self) -> bytes:
        return b"%d" % len(self.sent)

    def send(self, correlation: bytes, header: bytes, payload: bytes = b"", *, credited: bool = False) -> None:
        if self.down:
            raise DaemonBusy(actor="network")
        self.sent.append((correlation, decode(header)))


class SessionsSetup:
    def __init__(self) -> None:
        self.channel = FakeChannel()
        self.sessions = ClientSessions()

    def open(self, timeout: float = 60.0) -> asyncio.Task[Session]:
        return asyncio.ensure_future(self.sessions.open(cast(RequestChannel, self.channel), OPEN, b"", timeout))

    def answer(self, message: Message, payload: bytes = b"", *, id: bytes = b"0") -> None:
        self.sessions.on_message(id, encode(message), payload)

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.channel.sent]


async def test_a_session_stands_and_is_forgotten_once_it_is_over() -> None:
    setup = SessionsSetup()
    opening = setup.open()
    await run_pending()
    assert setup.messages == [OPEN]
    setup.answer(OPENED)
    session = await opening
    assert (session.peer.key, session.peer.name) == (KEY, "bob")
    setup.answer(SessionData(), b"x")
    setup.answer(EndOfStream())
    assert await session.read() == b"x"
    assert len(setup.sessions) == 1
    session.reset(3)
    assert len(setup.sessions) == 0
    for message in (SessionData(), WindowUpdate(1), StopSending(1), OPENED):
        setup.answer(message, b"late")


REFUSALS: list[tuple[Message, type[Exception]]] = [
    (ErrorReply.of(Denied(peer="p", protocol="Test", instance="default")), Denied),
    (ApplicationErrorReply("No", "not today"), ApplicationError),
    (SessionData(), BadReply),
    (ResetStream(1), BadReply),
]


@pytest.mark.parametrize(("message", "error"), REFUSALS)
async def test_a_no_is_raised_and_nothing_is_left(message: Message, error: type[Exception]) -> None:
    setup = SessionsSetup()
    opening = setup.open()
    await run_pending()
    setup.answer(message)
    with pytest.raises(error):
        await opening
    assert setup.messages == [OPEN]
    assert len(setup.sessions) == 0


async def test_cancelling_the_opening_sends_a_cancel() -> None:
    setup = SessionsSetup()
    opening = setup.open()
    await run_pending()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert setup.messages == [OPEN, Cancel()]
    assert len(setup.sessions) == 0


async def test_the_deadline_of_the_opening_sends_a_cancel() -> None:
    setup = SessionsSetup()
    with pytest.raises(DeadlineExceeded):
        await setup.open(timeout=0.01)
    assert setup.messages == [OPEN, Cancel()]
    assert len(setup.sessions) == 0


async def test_cancelling_as_the_session_opens_resets_it() -> None:
    setup = SessionsSetup()
    opening = setup.open()
    await run_pending()
    opening.cancel()
    setup.answer(OPENED)
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert setup.messages == [OPEN, ResetStream(0), StopSending(0)]
    assert len(setup.sessions) == 0


async def test_cancelling_the_opening_without_a_connection_leaves_nothing() -> None:
    setup = SessionsSetup()
    opening = setup.open()
    await run_pending()
    setup.channel.down = True
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert len(setup.sessions) == 0


async def test_a_failed_send_leaves_nothing() -> None:
    setup = SessionsSetup()
    setup.channel.down = True
    with pytest.raises(DaemonBusy):
        await setup.open()
    assert len(setup.sessions) == 0


async def test_a_daemon_that_dies_ends_them_all() -> None:
    setup = SessionsSetup()
    first, second = setup.open(), setup.open()
    await run_pending()
    setup.answer(OPENED)
    session = await first
    reading = asyncio.create_task(session.read())
    await run_pending()
    setup.sessions.connection_lost()
    for work in (reading, second):
        with pytest.raises(ConnectionLost):
            await work
    with pytest.raises(ConnectionLost):
        await session.close()
    assert len(setup.sessions) == 0
    assert setup.messages == [OPEN, OPEN]


async def test_a_message_that_is_none_ends_its_session() -> None:
    setup = SessionsSetup()
    opening = setup.open()
    await run_pending()
    setup.answer(OPENED)
    session = await opening
    setup.sessions.on_message(b"0", b"\xc1", b"")
    with pytest.raises(BadReply):
        await session.read()
    assert len(setup.sessions) == 0
    setup.sessions.on_message(b"0", b"\xc1", b"")


async def test_the_sessions_of_a_program_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_sessions, "MAX_SESSIONS_PER_CLIENT", 1)
    setup = SessionsSetup()
    first = setup.open()
    await run_pending()
    with pytest.raises(Overloaded):
        await setup.open()
    setup.answer(OPENED)
    (await first).reset()
    setup.answer(ResetStream(0))
    second: Any = setup.open()
    await run_pending()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
