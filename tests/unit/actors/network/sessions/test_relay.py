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

DENIED = ErrorReply.of(Denied(peer="p", protocol="Echo", instance="default"))
LAST = (ErrorReply, Cancel, ApplicationErrorReply)


class Side:
    """A leg that records the messages it gets."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.bytes = 0

    def take(self, header: bytes, message: Message, payload: bytes) -> None:
        assert header == encode(message)
        assert not any(isinstance(said, LAST) for said in self.told), "nothing is said after the last word"
        self.told.append(message)
        self.bytes += len(payload)

    @property
    def error(self) -> P2PError:
        """Error of the last message."""
        failure = self.told[-1]
        assert isinstance(failure, ErrorReply)
        return failure.error()


class Stage:
    """A relay with its two legs, and the number of calls of its hooks."""

    def __init__(self, credit: int = SESSION_WINDOW, *, served: bool = True, opened: bool = True) -> None:
        self.opener, self.server = Side(), Side()
        self.relay = SessionRelay(self.opener, credit)
        self.at_opened = self.at_end = 0
        self.relay.at_opened.append(self._count_opened)
        self.relay.at_end.append(self._count_end)
        if served:
            self.relay.server = self.server
        if opened:
            self.server_says(SessionOpened(SESSION_WINDOW))
            self.opener.told.clear()

    def _count_opened(self) -> None:
        self.at_opened += 1

    def _count_end(self) -> None:
        self.at_end += 1

    def opener_says(self, *messages: Message, payload: bytes = b"") -> None:
        for message in messages:
            self.relay.from_opener(encode(message), message, payload)

    def server_says(self, *messages: Message, payload: bytes = b"") -> None:
        for message in messages:
            self.relay.from_server(encode(message), message, payload)


def test_tells_the_opener_that_the_session_is_open_and_with_which_peer() -> None:
    stage = Stage(opened=False)
    stage.relay.answer = lambda opened: SessionOpened(opened.credit, b"key", "bob")
    assert not stage.relay.opened
    stage.server_says(SessionOpened(1000), SessionOpened(2000))
    assert stage.opener.told == [SessionOpened(1000, b"key", "bob")]
    assert stage.relay.opened
    assert (stage.at_opened, stage.at_end) == (1, 0)


def test_passes_session_messages_both_ways() -> None:
    stage = Stage()
    for says, hears in ((stage.opener_says, stage.server), (stage.server_says, stage.opener)):
        says(SessionData(), payload=b"12345")
        assert hears.told == [SessionData()]
        assert hears.bytes == 5
    stage.server_says(WindowUpdate(5 + CHUNK_COST))
    stage.opener_says(StopSending(3))
    assert stage.opener.told == [SessionData(), WindowUpdate(5 + CHUNK_COST)]
    assert stage.server.told == [SessionData(), StopSending(3)]


def test_ends_when_both_directions_have_ended() -> None:
    def there_complete(stage: Stage) -> None:
        stage.opener_says(EndOfStream())
        stage.server_says(Ack())

    def back_complete(stage: Stage) -> None:
        stage.server_says(EndOfStream())
        stage.opener_says(Ack())

    ends: list[tuple[Callable[[Stage], None], Callable[[Stage], None]]] = [
        (there_complete, back_complete),
        (lambda stage: stage.opener_says(ResetStream(1)), lambda stage: stage.server_says(ResetStream(1))),
    ]
    for first in ends:
        for second in ends:
            for order in (0, 1):
                stage = Stage()
                steps = [first[0], second[1]]
                steps[order](stage)
                assert not stage.relay.done
                steps[1 - order](stage)
                assert stage.relay.done
                assert stage.at_end == 1
                for say in (stage.opener_says, stage.server_says):
                    say(EndOfStream(), Ack(), ResetStream(1), StopSending(1), WindowUpdate(1), DENIED, Cancel())
                stage.relay.fail(ConnectionLost(what="it"))
                stage.relay.opener_gone()
                stage.relay.server_gone()
                assert stage.at_end == 1
                assert not any(isinstance(message, LAST) for message in stage.opener.told + stage.server.told)


def test_passes_only_acks_of_an_end_of_stream() -> None:
    stage = Stage()
    stage.server_says(Ack(), ResetStream(1))
    assert stage.opener.told == [ResetStream(1)]
    assert not stage.relay.done  # the opener goes on sending
    stage.opener_says(EndOfStream())
    stage.server_says(Ack(), Ack())
    assert stage.opener.told == [ResetStream(1), Ack()]
    assert stage.relay.done


def test_passes_nothing_after_the_end_of_a_direction() -> None:
    stage = Stage()
    stage.opener_says(EndOfStream(), EndOfStream())
    stage.opener_says(SessionData(), payload=b"late")
    assert stage.server.told == [EndOfStream()]
    stage.opener_says(ResetStream(4), ResetStream(4), EndOfStream())
    stage.opener_says(SessionData(), payload=b"late")
    stage.server_says(StopSending(5), WindowUpdate(3), Ack())
    assert stage.server.told == [EndOfStream(), ResetStream(4)]
    assert stage.opener.told == []


@pytest.mark.parametrize("served", [True, False])
def test_cancels_at_the_server_if_the_opener_leaves_before_it_is_open(served: bool) -> None:
    ways: list[Callable[[Stage], None]] = [
        lambda stage: stage.opener_says(Cancel()),
        lambda stage: stage.opener_says(DENIED),
        lambda stage: stage.relay.opener_gone(),
    ]
    for give_up in ways:
        stage = Stage(opened=False, served=served)
        give_up(stage)
        assert stage.server.told == ([Cancel()] if served else [])
        assert stage.opener.told == []
        assert stage.relay.done
        assert (stage.at_opened, stage.at_end) == (0, 1)
        stage.server_says(SessionOpened(1000), DENIED, ApplicationErrorReply("no"))
        assert stage.opener.told == []


def test_tells_the_handler_if_the_opener_leaves_while_it_is_accepted() -> None:
    """The two messages have crossed: the handler runs already, and gets an error."""
    stage = Stage()
    stage.opener_says(Cancel())
    assert isinstance(stage.server.error, ConnectionLost)
    assert stage.relay.done


@pytest.mark.parametrize("answer", [DENIED, ApplicationErrorReply("No", "not today")])
def test_passes_a_rejection_to_the_opener_only(answer: Message) -> None:
    stage = Stage(opened=False)
    stage.server_says(answer, SessionOpened(1000), DENIED)
    assert stage.opener.told == [answer]
    assert stage.server.told == []
    assert (stage.at_opened, stage.at_end) == (0, 1)


def test_drops_application_errors_of_an_open_session_but_not_error_replies() -> None:
    stage = Stage()
    stage.server_says(ApplicationErrorReply("No"), Cancel())
    assert stage.opener.told == []
    assert not stage.relay.done
    stage.server_says(DENIED)
    assert stage.opener.told == [DENIED]
    stage = Stage()
    stage.opener_says(DENIED)
    assert stage.server.told == [DENIED]
    assert stage.relay.done


@pytest.mark.parametrize("opened", [True, False])
def test_tells_the_remaining_side_that_the_other_has_ended(opened: bool) -> None:
    stage = Stage(opened=opened)
    stage.relay.server_gone()
    assert isinstance(stage.opener.error, ConnectionLost)
    assert stage.server.told == []
    assert stage.at_end == 1
    stage = Stage(opened=opened)
    stage.relay.fail(ConnectionLost(what="the way"))
    assert isinstance(stage.opener.error, ConnectionLost)
    assert stage.server.told == ([ErrorReply.of(ConnectionLost(what="the way"))] if opened else [Cancel()])
    assert stage.at_end == 1


def test_passes_nothing_before_the_session_is_open() -> None:
    stage = Stage(opened=False)
    stage.opener_says(EndOfStream(), ResetStream(1), StopSending(1), WindowUpdate(1), Ack(), SessionOpened(5))
    stage.server_says(EndOfStream(), ResetStream(1), StopSending(1), WindowUpdate(1), Ack(), Cancel())
    stage.opener_says(SessionData(), payload=b"early")
    stage.server_says(SessionData(), payload=b"early")
    assert (stage.opener.told, stage.server.told) == ([], [])
    assert not stage.relay.done


def test_does_not_let_the_opener_accept() -> None:
    stage = Stage()
    stage.opener_says(SessionOpened(SESSION_WINDOW), ApplicationErrorReply("no"))
    assert stage.server.told == []


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
    """So the memory that a side can occupy here is bounded."""
    message, payload = BREACHES[name]
    stage = Stage(credit=SESSION_WINDOW, opened=False)
    stage.server_says(SessionOpened(SESSION_WINDOW))
    if isinstance(message, SessionData) and payload:  # all but 1,000 bytes are on their way
        say = stage.opener_says if side == "opener" else stage.server_says
        say(SessionData(), payload=bytes(SESSION_WINDOW - 1000 - CHUNK_COST))
    stage.opener.bytes = stage.server.bytes = 0
    (stage.opener_says if side == "opener" else stage.server_says)(message, payload=payload)
    for told in (stage.opener, stage.server):
        assert isinstance(told.error, BadMessage)
        assert told.bytes == 0
    assert stage.relay.done
    assert stage.at_end == 1


@pytest.mark.parametrize("credit", [0, -1, SESSION_WINDOW + 1, 2**62])
def test_fails_a_session_that_is_accepted_with_invalid_credit(credit: int) -> None:
    stage = Stage(opened=False)
    stage.server_says(SessionOpened(credit))
    assert isinstance(stage.opener.error, BadMessage)
    assert stage.server.told == [Cancel()]
    assert (stage.at_opened, stage.at_end) == (0, 1)


def test_allows_granted_credit_to_the_last_byte() -> None:
    stage = Stage(credit=1000)
    stage.server_says(SessionData(), payload=bytes(1000 - CHUNK_COST))
    stage.opener_says(WindowUpdate(500), WindowUpdate(500))
    stage.server_says(SessionData(), payload=bytes(1000 - CHUNK_COST))
    assert stage.opener.told == [SessionData(), SessionData()]
    assert not stage.relay.done


words = st.sampled_from(
    [
        SessionOpened(1000), SessionData(), SessionData(), EndOfStream(), Ack(), WindowUpdate(1), WindowUpdate(100),
        ResetStream(0), ResetStream(RESET_LOST), StopSending(0), StopSending(9), Cancel(), DENIED,
        ApplicationErrorReply("no"),
    ]
)  # fmt: skip
events = st.one_of(
    st.tuples(st.sampled_from(["opener", "server"]), words, st.binary(max_size=100)),
    st.tuples(st.sampled_from(["opener gone", "server gone", "fail"]), st.none(), st.just(b"")),
)


@settings(max_examples=500)
@given(st.lists(events, max_size=25))
def test_each_side_gets_at_most_one_final_message_and_each_hook_one_call(
    events: list[tuple[str, Any, bytes]],
) -> None:
    stage = Stage(opened=False)
    for what, message, payload in events:
        if what == "opener":
            stage.opener_says(message, payload=payload)
        elif what == "server":
            stage.server_says(message, payload=payload)
        elif what == "fail":
            stage.relay.fail(ConnectionLost(what="it"))
        else:
            getattr(stage.relay, what.replace(" ", "_"))()
        assert stage.at_end == int(stage.relay.done)
        assert stage.at_opened == int(stage.relay.opened)
    for side in (stage.opener, stage.server):
        kinds = [type(message) for message in side.told]
        assert kinds.count(EndOfStream) <= 1
        assert kinds.count(Ack) <= 1
        assert kinds.count(ResetStream) <= 1
        assert sum(kind in LAST for kind in kinds) <= 1
        assert side.bytes <= 2 * SESSION_WINDOW
    stage.relay.fail(ConnectionLost(what="the end"))
    assert stage.relay.done
    assert stage.at_end == 1
