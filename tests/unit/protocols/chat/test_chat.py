"""Parts of Chat: message tables, delivery, open conversations, framing and formatting."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p.protocols.chat.config import ChatConfig
from fastn_p2p.protocols.chat.delivery import PeerDelivery, PeerTransport
from fastn_p2p.protocols.chat.formatting import escape_line, escape_text
from fastn_p2p.protocols.chat.message_store import SCHEMA, DeliveryBatch, MessageStore, MessageTables
from fastn_p2p.protocols.chat.open_conversations import ConversationId, OpenConversations
from fastn_p2p.protocols.chat.terminal_ui import wrap
from fastn_p2p.store import StoreConnection
from fastn_p2p_client.chat.client import _EventDeduplicator
from fastn_p2p_client.chat.messages import (
    MAX_BATCH,
    MAX_TEXT,
    ChatMessage,
    DeliverMessages,
    DeliveryProblem,
    Event,
    HistoryEnd,
    MarkRead,
    OutgoingMessage,
    PeerRequest,
    Presence,
    ReadReceipt,
    Request,
    StateChanged,
)
from fastn_p2p_client.errors import ApplicationError, BadMessage, ConnectionLost, Denied, StorageDamaged, StorageFailed
from fastn_p2p_client.retry import Backoff
from fastn_p2p_client.session import framing
from fastn_p2p_client.testing import session_pair
from tests.support.event_loop import run_pending
from tests.support.stores import StoresOfTests

BOB, CAROL = "b" * 52, "c" * 52


def number(value: int) -> str:
    return f"{value:032x}"


def sent(value: int, text: str = "hi", at: int = 5) -> OutgoingMessage:
    return OutgoingMessage(number(value), text, at)


@pytest.fixture
def database() -> Iterator[StoreConnection]:
    with StoresOfTests.connection(SCHEMA) as connection:
        yield connection


@pytest.fixture
def history(database: StoreConnection) -> MessageTables:
    return MessageTables(database, ChatConfig())


def texts(history: MessageTables, conversation: str = "default") -> list[str]:
    return [line.text for line in history.history(BOB, conversation, None, 1000)]


# ── messages ─────────────────────────────────────────────────────────────────────────────────────


def test_an_id_names_one_message_of_one_author(history: MessageTables) -> None:
    line, new = history.add_sent(BOB, "default", number(1), "first", 10)
    assert new
    assert history.add_sent(BOB, "default", number(1), "other", 11) == (line, False)
    assert len(history.add_received(BOB, "default", [sent(1), sent(2), sent(2)], 12)) == 2
    assert history.add_received(BOB, "default", [sent(2, "again")], 13) == []
    assert len(history.add_received(CAROL, "default", [sent(2)], 14)) == 1
    assert texts(history) == ["first", "hi", "hi"]


def test_limits_the_time_of_a_message_to_the_local_clock(history: MessageTables) -> None:
    lines = history.add_received(BOB, "default", [sent(1, at=5), sent(2, at=1 << 53)], 100)
    assert [line.at for line in lines] == [5, 100]


def test_the_state_of_a_message_never_goes_back(history: MessageTables) -> None:
    history.add_sent(BOB, "default", number(1), "hi", 10)
    assert history.mark_read_by_peer(BOB, "default", [number(1), number(9)]) == [number(1)]
    assert history.mark_delivered(BOB, [number(1)]) == []
    assert history.mark_read_by_peer(BOB, "default", [number(1)]) == []
    assert history.history(BOB, "default", None, 10)[0].mark == "seen"
    history.add_received(BOB, "default", [sent(2)], 11)
    assert history.mark_delivered(BOB, [number(2)]) == []  # that one is not ours


def test_a_receipt_changes_only_its_own_conversation(history: MessageTables) -> None:
    history.add_sent(BOB, "default", number(1), "hi", 10)
    assert history.mark_read_by_peer(BOB, "other", [number(1)]) == []
    assert history.mark_read_by_peer(CAROL, "default", [number(1)]) == []


def test_a_batch_is_in_order_and_of_one_conversation(history: MessageTables) -> None:
    assert history.next_batch(BOB) is None
    for value, conversation in enumerate(("a", "a", "b", "a")):
        history.add_sent(BOB, conversation, number(value), str(value), 10)
    history.add_received(BOB, "a", [sent(8), sent(9)], 10)
    assert history.mark_read_here(BOB, "a", 1000)
    assert not history.mark_read_here(BOB, "a", 1000)
    done: list[DeliveryBatch] = []
    while (work := history.next_batch(BOB)) is not None:
        done.append(work)
        history.mark_delivered(BOB, [each.id for each in work.messages])
        history.receipts_sent(BOB, work.read)
    assert [(each.conversation, [m.text for m in each.messages], each.read) for each in done] == [
        ("a", ["0", "1"], []),
        ("b", ["2"], []),
        ("a", ["3"], []),
        ("a", [], [number(8), number(9)]),
    ]
    assert history.waiting_peers() == []


def test_a_batch_fits_one_request(history: MessageTables) -> None:
    for value in range(MAX_BATCH + 1):
        history.add_sent(BOB, "default", number(value), "x" * (MAX_TEXT if value < 40 else 1), 10)
    sizes = []
    while (work := history.next_batch(BOB)) is not None:
        request = msgspec.msgpack.encode(DeliverMessages(work.conversation, work.messages))
        assert msgspec.msgpack.decode(request, type=Request) == DeliverMessages(work.conversation, work.messages)
        sizes.append(len(work.messages))
        history.mark_delivered(BOB, [each.id for each in work.messages])
    assert sum(sizes) == MAX_BATCH + 1
    assert max(sizes) <= MAX_BATCH
    assert sizes[0] == 16


def test_deletes_the_oldest_messages_above_a_limit_but_none_that_waits(history: MessageTables) -> None:
    history._config = ChatConfig(history=4)
    history.add_sent(BOB, "default", number(1), "waits", 10)
    for value in range(10):
        history.add_received(BOB, "default", [sent(value, str(value))], 10)
    assert texts(history) == ["waits", "7", "8", "9"]
    history.mark_delivered(BOB, [number(1)])
    history.add_received(BOB, "default", [sent(10, "10")], 10)
    assert texts(history) == ["7", "8", "9", "10"]
    history._config = ChatConfig(history_bytes=1024 * 64)
    history.add_received(BOB, "default", [sent(20 + value, "é" * MAX_TEXT) for value in range(5)], 10)
    assert [len(each) for each in texts(history)] == [MAX_TEXT] * 2


def test_rejects_messages_above_a_limit(history: MessageTables) -> None:
    history._config = ChatConfig(waiting=1, peers=1)
    history.add_sent(BOB, "default", number(1), "hi", 10)
    for action, kind in (
        (lambda: history.add_sent(BOB, "default", number(2), "hi", 10), "TooManyWaiting"),
        (lambda: history.add_received(CAROL, "default", [sent(1)], 10), "TooManyPeers"),
    ):
        with pytest.raises(ApplicationError) as raised:
            action()
        assert raised.value.kind == kind
    assert texts(history) == ["hi"]


@pytest.mark.sqlite_only
async def test_messages_survive_a_restart_and_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = MessageStore(StoresOfTests.make(path, SCHEMA, "Chat"), ChatConfig())
    await store.open()
    await store.write(MessageTables.add_sent, BOB, "default", number(1), "hi", 10)
    await store.close()
    await store.open()
    assert await store.read(MessageTables.waiting_peers) == [BOB]
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 2")
    with pytest.raises(StorageDamaged):
        await store.open()


async def test_a_rejected_message_leaves_nothing_behind(tmp_path: Path) -> None:
    store = MessageStore(StoresOfTests.make(tmp_path / "chat.db", SCHEMA, "Chat"), ChatConfig(peers=1))
    await store.open()
    await store.write(MessageTables.add_sent, BOB, "default", number(1), "hi", 10)
    with pytest.raises(ApplicationError, match="TooManyPeers"):
        await store.write(MessageTables.add_received, CAROL, "default", [sent(1)], 10)
    await store.write(MessageTables.add_received, BOB, "default", [sent(3)], 10)
    assert len(await store.read(MessageTables.history, BOB, "default", None, 10)) == 2
    await store.close()


@pytest.mark.sqlite_only
async def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    path.write_bytes(b"no database" * 1000)
    store = MessageStore(StoresOfTests.make(path, SCHEMA, "Chat"), ChatConfig())
    with pytest.raises(StorageDamaged):
        await store.open()
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageFailed):
        await store.open()


# ── delivery ─────────────────────────────────────────────────────────────────────────────────────


class StubTransport(PeerTransport):
    """A peer that is reachable when a test says so, and fails with ``errors`` first."""

    def __init__(self) -> None:
        self.peer = BOB
        self.online = asyncio.Event()
        self.errors: list[Exception] = []
        self.requests: list[PeerRequest] = []

    async def wait_until_online(self) -> None:
        await self.online.wait()

    async def send(self, request: PeerRequest) -> None:
        self.requests.append(request)
        if self.errors:
            raise self.errors.pop(0)


async def test_everything_is_delivered_once_and_only_lasting_problems_are_reported(tmp_path: Path) -> None:
    store = MessageStore(StoresOfTests.make(tmp_path / "chat.db", SCHEMA, "Chat"), ChatConfig())
    await store.open()
    transport, delivered, problems = StubTransport(), asyncio.Queue[tuple[str, list[str]]](), list[str]()
    delivery = PeerDelivery(
        transport,
        store,
        on_delivered=lambda conversation, ids: delivered.put_nowait((conversation, ids)),
        on_problem=problems.append,
        backoff=Backoff(0.0, 0.0),
    )
    denied = Denied(peer="bob", protocol="Chat", instance="default")
    transport.errors = [ConnectionLost(what="the connection"), denied]
    for value in range(2):
        await store.write(MessageTables.add_sent, BOB, "default", number(value), "hi", 10)
        delivery.wake()
    await run_pending()
    assert transport.requests == []
    transport.online.set()
    assert await delivered.get() == ("default", [number(0), number(1)])
    assert len(transport.requests) == 3
    assert problems == [str(denied), ""]  # a lost connection is not reported
    await store.write(MessageTables.add_received, BOB, "default", [sent(7)], 10)
    await store.write(MessageTables.mark_read_here, BOB, "default", 1000)
    delivery.wake()
    while not delivery.is_idle:
        await run_pending()
    assert transport.requests[3:] == [ReadReceipt("default", [number(7)])]
    await delivery.close()
    await store.close()


# ── events ───────────────────────────────────────────────────────────────────────────────────────


async def test_conversations_are_open_while_a_terminal_shows_them() -> None:
    sending: list[ConversationId] = []

    class StubPresenceSender:
        def __init__(self, id: ConversationId) -> None:
            self.id = id
            sending.append(id)

        async def close(self) -> None:
            sending.remove(self.id)

    open_conversations = OpenConversations(cast(Any, StubPresenceSender))
    bob_a, bob_b = ConversationId(BOB, "a"), ConversationId(BOB, "b")
    conversation, one = open_conversations.add_terminal(bob_a)
    _, two = open_conversations.add_terminal(bob_a)
    assert sending == [bob_a]
    for _ in range(2):
        open_conversations.peer_joined(bob_a)
    open_conversations.peer_joined(bob_b)
    assert conversation.presence == "here"
    for _ in range(2):
        open_conversations.peer_left(bob_a)
    open_conversations.publish_to_all(BOB, DeliveryProblem("x"))
    for terminal in (one, two):
        told = [await terminal.next() for _ in range(3)]
        assert told == [Presence("here"), Presence("away"), DeliveryProblem("x")]
    await open_conversations.remove_terminal(bob_a, one)
    assert sending == [bob_a]
    await open_conversations.remove_terminal(bob_a, two)
    assert sending == []
    open_conversations.peer_left(bob_b)
    assert len(open_conversations) == 0


def line(seq: int, mark: Any = "kept") -> ChatMessage:
    return ChatMessage(seq, number(seq), True, "hi", 5, mark)


def test_following_again_repeats_no_event() -> None:
    told = _EventDeduplicator()

    def news(*events: Event) -> list[Event]:
        return [each for event in events for each in told.updates(event)]

    first: list[Event] = [line(1), line(2), HistoryEnd("away"), DeliveryProblem("no"), Presence("here")]
    assert told.more_than(20) == 20
    assert news(*first) == first
    assert told.more_than(20) > 20
    assert news(line(1), line(2, "seen"), line(3), HistoryEnd("here")) == [
        StateChanged(number(2), "seen"),
        line(3),
        DeliveryProblem(""),
    ]
    assert news(line(2, "seen"), line(3), HistoryEnd("away"), Presence("away")) == [Presence("away")]


# ── framing ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [b"\x00", b"\x00\x00\x00\x02\xc0", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x01\xc0"],
)
async def test_rejects_invalid_frames(data: bytes) -> None:
    ours, theirs = session_pair()
    theirs.accept()
    await ours.opened
    await ours.write(data)
    await ours.send_eof()
    with pytest.raises(BadMessage):
        await framing.receive_message(theirs, msgspec.msgpack.Decoder(MarkRead))


async def test_messages_arrive_and_then_the_end() -> None:
    ours, theirs = session_pair()
    theirs.accept()
    await ours.opened
    for seq in (1, 2):
        await framing.send_message(ours, MarkRead(seq))
    await ours.send_eof()
    decoder = msgspec.msgpack.Decoder(MarkRead)
    for expected in (MarkRead(1), MarkRead(2), None):
        assert await framing.receive_message(theirs, decoder) == expected


def test_at_most_so_many_messages_of_one_conversation_are_kept(history: MessageTables) -> None:
    """The oldest go first, never one that waits; and when it has been delivered, it goes too."""
    history._config = ChatConfig(max_msgs=3)
    peer = "p" * 52

    def texts(conversation: str) -> list[str]:
        return [line.text for line in history.history(peer, conversation, None, 100)]

    waiting = [history.add_sent(peer, "one", f"{number:032x}", f"mine {number}", 1)[0].id for number in range(5)]
    theirs = [OutgoingMessage(f"{number:032x}", f"theirs {number}", 1) for number in range(5)]
    history.add_received(peer, "two", theirs, 1)
    assert texts("one") == [f"mine {number}" for number in range(5)]
    assert texts("two") == [f"theirs {number}" for number in range(2, 5)]
    history.add_received(peer, "one", [OutgoingMessage(f"{9:032x}", "theirs", 1)], 1)
    assert texts("one") == [f"mine {number}" for number in range(5)]
    assert history.mark_delivered(peer, waiting[1:]) == waiting[1:]
    assert texts("one") == ["mine 0", "mine 3", "mine 4"]
    history._config = ChatConfig(max_msgs=1)
    history.prune_all()
    assert (texts("one"), texts("two")) == (["mine 0"], ["theirs 4"])
    assert history.conversations()[0].messages == 1
    history.mark_delivered(peer, waiting)
    assert [line.text for line in history.history(peer, "one", None, 9)] == ["mine 0"]


# ── formatting ────────────────────────────────────────────────────────────────────────────────────


@given(st.text())
def test_escapes_everything_that_controls_a_terminal(text: str) -> None:
    for show, allowed in ((escape_text, {"\n"}), (escape_line, set[str]())):
        for character in show(text):
            assert character in allowed or unicodedata.category(character) not in ("Cc", "Zl", "Zp")
            assert unicodedata.bidirectional(character) not in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI")


def test_visible_text_is_not_changed() -> None:
    for text in ("plain", "grüße 你好 👩‍👩‍👧 ✓", "שלום"):
        assert escape_text(text) == text
    assert escape_line("a\\n\n\tb") == r"a\\n\n\tb"


@pytest.mark.parametrize(
    ("texts", "columns", "rows"),
    [
        (["abc", "def"], 4, ["abcd", "ef"]),
        (["ab\n", "cd"], 4, ["ab", "cd"]),
        (["你好吗"], 5, ["你好", "吗"]),
        (["abcd"], 4, ["abcd"]),
        (["ab"], 0, ["ab"]),
        ([""], 4, [""]),
    ],
)
def test_rows_are_as_long_as_the_terminal_is_wide(texts: list[str], columns: int, rows: list[str]) -> None:
    joined = "".join(text for _, text, *_ in wrap([("", each) for each in texts], columns))
    assert joined.split("\n") == rows


PAGE = (Path(__file__).resolve().parents[4] / "docs" / "chat.md").read_text()


def test_the_page_lists_the_config_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE)
    assert {name: int(default) for name, default in rows} | {"store": ""} == msgspec.to_builtins(ChatConfig())
    assert "| `store` | none |" in PAGE
    assert f"{MAX_TEXT:,} characters" in PAGE


def test_the_page_lists_the_events_as_they_are() -> None:
    table = PAGE.split("| event | fields |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", fields))) for name, fields in rows}
    assert documented == {
        each.__struct_config__.tag: set(each.__struct_fields__)
        for each in (ChatMessage, HistoryEnd, StateChanged, Presence, DeliveryProblem)
    }


def test_pauses_grow_until_a_reset() -> None:
    pauses = Backoff(0.5, 3.0, chance=lambda: 0.0)
    assert [pauses.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    pauses.reset()
    assert pauses.next_delay() == 0.5


@pytest.mark.parametrize(
    ("config", "field"),
    [({"history": 0}, "history"), ({"waiting": "x"}, "waiting"), ({"nothing": 1}, "nothing")],
)
def test_a_config_names_its_field(config: dict[str, object], field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(config, ChatConfig)
