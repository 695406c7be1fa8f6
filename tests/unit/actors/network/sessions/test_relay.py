"""Messages that the relay of a session passes on, and messages that it drops or punishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastn_p2p_actors.network.sessions.relay import SessionRelay
from fastn_p2p_client.errors import BadMessage, ConnectionLost, Denied, P2PError
from fastn_p2p_client.ipc.messages import (
    Ack,
    ApplicationErrorReply,
    Cancel,
    EndOfStream,
    ErrorReply,
    Message,
    ResetStream,
    SessionData,
    SessionOpened,
    StopSending,
    WindowUpdate,
    encode,
)
from fastn_p2p_client.limits import CHUNK_COST, RESET_LOST, SESSION_WINDOW
from fastn_p2p_client.session.shared_memory import Chunk

DENIED = ErrorReply.of(Denied(peer="p", protocol="Echo", instance="default"))
LAST = (ErrorReply, Cancel, ApplicationErrorReply)


class StubLeg:
    """A leg that records the messages it gets."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.bytes = 0

    def receive(self, header: bytes, message: Message, payload: Chunk) -> None:
        assert header == encode(message)
        assert not any(isinstance(said, LAST) for said in self.received), "nothing is said after the last word"
        self.received.append(message)
        self.bytes += len(payload)

    @property
    def error(self) -> P2PError:
        """Error of the last message."""
        failure = self.received[-1]
        assert isinstance(failure, ErrorReply)
        return failure.error()


class RelaySetup:
    """A relay with its two legs, and the number of calls of its hooks."""

    def __init__(self, credit: int = SESSION_WINDOW, *, served: bool = True, opened: bool = True) -> None:
        self.opener, self.server = StubLeg(), StubLeg()
        self.relay = SessionRelay(self.opener, credit)
        self.at_opened = self.at_end = 0
        self.relay.at_opened.append(self._count_opened)
        self.relay.at_end.append(self._count_end)
        if served:
            self.relay.server = self.server
        if opened:
            self.from_server(SessionOpened(SESSION_WINDOW))
            self.opener.received.clear()

    def _count_opened(self) -> None:
        self.at_opened += 1

    def _count_end(self) -> None:
        self.at_end += 1

    def from_opener(self, *messages: Message, payload: bytes = b"") -> None:
        for message in messages:
            self.relay.from_opener(encode(message), message, payload)

    def from_server(self, *messages: Message, payload: bytes = b"") -> None:
        for message in messages:
            self.relay.from_server(encode(message), message, payload)


def test_tells_the_opener_that_the_session_is_open_and_with_which_peer() -> None:
    setup = RelaySetup(opened=False)
    setup.relay.answer = lambda opened: SessionOpened(opened.credit, b"key", "bob")
    assert not setup.relay.opened
    setup.from_server(SessionOpened(1000), SessionOpened(2000))
    assert setup.opener.received == [SessionOpened(1000, b"key", "bob")]
    assert setup.relay.opened
    assert (setup.at_opened, setup.at_end) == (1, 0)


def test_passes_session_messages_both_ways() -> None:
    setup = RelaySetup()
    for send, receiver in ((setup.from_opener, setup.server), (setup.from_server, setup.opener)):
        send(SessionData(), payload=b"12345")
        assert receiver.received == [SessionData()]
        assert receiver.bytes == 5
    setup.from_server(WindowUpdate(5 + CHUNK_COST))
    setup.from_opener(StopSending(3))
    assert setup.opener.received == [SessionData(), WindowUpdate(5 + CHUNK_COST)]
    assert setup.server.received == [SessionData(), StopSending(3)]


def test_ends_when_both_directions_have_ended() -> None:
    def there_complete(setup: RelaySetup) -> None:
        setup.from_opener(EndOfStream())
        setup.from_server(Ack())

    def back_complete(setup: RelaySetup) -> None:
        setup.from_server(EndOfStream())
        setup.from_opener(Ack())

    ends: list[tuple[Callable[[RelaySetup], None], Callable[[RelaySetup], None]]] = [
        (there_complete, back_complete),
        (lambda setup: setup.from_opener(ResetStream(1)), lambda setup: setup.from_server(ResetStream(1))),
    ]
    for first in ends:
        for second in ends:
            for order in (0, 1):
                setup = RelaySetup()
                steps = [first[0], second[1]]
                steps[order](setup)
                assert not setup.relay.done
                steps[1 - order](setup)
                assert setup.relay.done
                assert setup.at_end == 1
                for send in (setup.from_opener, setup.from_server):
                    send(EndOfStream(), Ack(), ResetStream(1), StopSending(1), WindowUpdate(1), DENIED, Cancel())
                setup.relay.fail(ConnectionLost(what="it"))
                setup.relay.on_opener_lost()
                setup.relay.on_server_lost()
                assert setup.at_end == 1
                assert not any(isinstance(message, LAST) for message in setup.opener.received + setup.server.received)


def test_passes_only_acks_of_an_end_of_stream() -> None:
    setup = RelaySetup()
    setup.from_server(Ack(), ResetStream(1))
    assert setup.opener.received == [ResetStream(1)]
    assert not setup.relay.done  # the opener goes on sending
    setup.from_opener(EndOfStream())
    setup.from_server(Ack(), Ack())
    assert setup.opener.received == [ResetStream(1), Ack()]
    assert setup.relay.done


def test_passes_nothing_after_the_end_of_a_direction() -> None:
    setup = RelaySetup()
    setup.from_opener(EndOfStream(), EndOfStream())
    setup.from_opener(SessionData(), payload=b"late")
    assert setup.server.received == [EndOfStream()]
    setup.from_opener(ResetStream(4), ResetStream(4), EndOfStream())
    setup.from_opener(SessionData(), payload=b"late")
    setup.from_server(StopSending(5), WindowUpdate(3), Ack())
    assert setup.server.received == [EndOfStream(), ResetStream(4)]
    assert setup.opener.received == []


@pytest.mark.parametrize("served", [True, False])
def test_cancels_at_the_server_if_the_opener_leaves_before_it_is_open(served: bool) -> None:
    ways: list[Callable[[RelaySetup], None]] = [
        lambda setup: setup.from_opener(Cancel()),
        lambda setup: setup.from_opener(DENIED),
        lambda setup: setup.relay.on_opener_lost(),
    ]
    for give_up in ways:
        setup = RelaySetup(opened=False, served=served)
        give_up(setup)
        assert setup.server.received == ([Cancel()] if served else [])
        assert setup.opener.received == []
        assert setup.relay.done
        assert (setup.at_opened, setup.at_end) == (0, 1)
        setup.from_server(SessionOpened(1000), DENIED, ApplicationErrorReply("no"))
        assert setup.opener.received == []


def test_tells_the_handler_if_the_opener_leaves_while_it_is_accepted() -> None:
    """The two messages have crossed: the handler runs already, and gets an error."""
    setup = RelaySetup()
    setup.from_opener(Cancel())
    assert isinstance(setup.server.error, ConnectionLost)
    assert setup.relay.done


@pytest.mark.parametrize("answer", [DENIED, ApplicationErrorReply("No", "not today")])
def test_passes_a_rejection_to_the_opener_only(answer: Message) -> None:
    setup = RelaySetup(opened=False)
    setup.from_server(answer, SessionOpened(1000), DENIED)
    assert setup.opener.received == [answer]
    assert setup.server.received == []
    assert (setup.at_opened, setup.at_end) == (0, 1)


def test_drops_application_errors_of_an_open_session_but_not_error_replies() -> None:
    setup = RelaySetup()
    setup.from_server(ApplicationErrorReply("No"), Cancel())
    assert setup.opener.received == []
    assert not setup.relay.done
    setup.from_server(DENIED)
    assert setup.opener.received == [DENIED]
    setup = RelaySetup()
    setup.from_opener(DENIED)
    assert setup.server.received == [DENIED]
    assert setup.relay.done


@pytest.mark.parametrize("opened", [True, False])
def test_tells_the_remaining_side_that_the_other_has_ended(opened: bool) -> None:
    setup = RelaySetup(opened=opened)
    setup.relay.on_server_lost()
    assert isinstance(setup.opener.error, ConnectionLost)
    assert setup.server.received == []
    assert setup.at_end == 1
    setup = RelaySetup(opened=opened)
    setup.relay.fail(ConnectionLost(what="the way"))
    assert isinstance(setup.opener.error, ConnectionLost)
    assert setup.server.received == ([ErrorReply.of(ConnectionLost(what="the way"))] if opened else [Cancel()])
    assert setup.at_end == 1


def test_passes_nothing_before_the_session_is_open() -> None:
    setup = RelaySetup(opened=False)
    setup.from_opener(EndOfStream(), ResetStream(1), StopSending(1), WindowUpdate(1), Ack(), SessionOpened(5))
    setup.from_server(EndOfStream(), ResetStream(1), StopSending(1), WindowUpdate(1), Ack(), Cancel())
    setup.from_opener(SessionData(), payload=b"early")
    setup.from_server(SessionData(), payload=b"early")
    assert (setup.opener.received, setup.server.received) == ([], [])
    assert not setup.relay.done


def test_does_not_let_the_opener_accept() -> None:
    setup = RelaySetup()
    setup.from_opener(SessionOpened(SESSION_WINDOW), ApplicationErrorReply("no"))
    assert setup.server.received == []


BREACHES: dict[str, tuple[Message, bytes]] = {
    "a chunk beyond the credit": (SessionData(), bytes(1000 - CHUNK_COST + 1)),
    "an empty chunk": (SessionData(), b""),
    "credit that is none": (WindowUpdate(0), b""),
    "credit that is less than none": (WindowUpdate(-1), b""),
    "credit for nothing": (WindowUpdate(1), b""),
    "credit for everything": (WindowUpdate(2**62), b""),
    "a code below all": (ResetStream(-1), b""),
    "a code that nobody has": (ResetStream(RESET_LOST + 1), b""),
    "a stop with a code below all": (StopSending(-(2**63)), b""),
    "a stop with a code that nobody has": (StopSending(2**64 - 1), b""),
}


@pytest.mark.parametrize("name", BREACHES)
@pytest.mark.parametrize("side", ["opener", "server"])
def test_fails_the_session_of_a_side_that_breaks_the_rules(side: str, name: str) -> None:
    """This bounds the memory that a side can occupy."""
    message, payload = BREACHES[name]
    setup = RelaySetup(credit=SESSION_WINDOW, opened=False)
    setup.from_server(SessionOpened(SESSION_WINDOW))
    if isinstance(message, SessionData) and payload:  # all but 1,000 bytes are on their way
        send = setup.from_opener if side == "opener" else setup.from_server
        send(SessionData(), payload=bytes(SESSION_WINDOW - 1000 - CHUNK_COST))
    setup.opener.bytes = setup.server.bytes = 0
    (setup.from_opener if side == "opener" else setup.from_server)(message, payload=payload)
    for received in (setup.opener, setup.server):
        assert isinstance(received.error, BadMessage)
        assert received.bytes == 0
    assert setup.relay.done
    assert setup.at_end == 1


@pytest.mark.parametrize("credit", [0, -1, SESSION_WINDOW + 1, 2**62])
def test_fails_a_session_that_is_accepted_with_invalid_credit(credit: int) -> None:
    setup = RelaySetup(opened=False)
    setup.from_server(SessionOpened(credit))
    assert isinstance(setup.opener.error, BadMessage)
    assert setup.server.received == [Cancel()]
    assert (setup.at_opened, setup.at_end) == (0, 1)


def test_allows_granted_credit_to_the_last_byte() -> None:
    setup = RelaySetup(credit=1000)
    setup.from_server(SessionData(), payload=bytes(1000 - CHUNK_COST))
    setup.from_opener(WindowUpdate(500), WindowUpdate(500))
    setup.from_server(SessionData(), payload=bytes(1000 - CHUNK_COST))
    assert setup.opener.received == [SessionData(), SessionData()]
    assert not setup.relay.done


words = st.sampled_from(
    [
        SessionOpened(1000), SessionData(), SessionData(), EndOfStream(), Ack(), WindowUpdate(1), WindowUpdate(100),
        ResetStream(0), ResetStream(RESET_LOST), StopSending(0), StopSending(9), Cancel(), DENIED,
        ApplicationErrorReply("no"),
    ]
)  # fmt: skip
events = st.one_of(
    st.tuples(st.sampled_from(["opener", "server"]), words, st.binary(max_size=100)),
    st.tuples(st.sampled_from(["opener lost", "server lost", "fail"]), st.none(), st.just(b"")),
)


@settings(max_examples=500)
@given(st.lists(events, max_size=25))
def test_each_side_gets_at_most_one_final_message_and_each_hook_one_call(
    events: list[tuple[str, Any, bytes]],
) -> None:
    setup = RelaySetup(opened=False)
    for what, message, payload in events:
        if what == "opener":
            setup.from_opener(message, payload=payload)
        elif what == "server":
            setup.from_server(message, payload=payload)
        elif what == "fail":
            setup.relay.fail(ConnectionLost(what="it"))
        else:
            {"opener lost": setup.relay.on_opener_lost, "server lost": setup.relay.on_server_lost}[what]()
        assert setup.at_end == int(setup.relay.done)
        assert setup.at_opened == int(setup.relay.opened)
    for side in (setup.opener, setup.server):
        kinds = [type(message) for message in side.received]
        assert kinds.count(EndOfStream) <= 1
        assert kinds.count(Ack) <= 1
        assert kinds.count(ResetStream) <= 1
        assert sum(kind in LAST for kind in kinds) <= 1
        assert side.bytes <= 2 * SESSION_WINDOW
    setup.relay.fail(ConnectionLost(what="the end"))
    assert setup.relay.done
    assert setup.at_end == 1
