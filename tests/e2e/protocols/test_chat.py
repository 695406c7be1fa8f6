"""Conversations between two daemons: kept by both, delivered once and in order, also over absences and crashes."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.chat.client import ChatClient, Conversation
from fastn_p2p_client.chat.messages import (
    ChatMessage,
    Delivered,
    DeliveryProblem,
    Event,
    FollowConversation,
    GetHistory,
    HistoryEnd,
    ListConversations,
    OpenPresence,
    Presence,
    ReadReceipt,
    StateChanged,
)
from fastn_p2p_client.errors import ApplicationError, Denied, PeerUnknown, StreamReset
from fastn_p2p_client.ipc.messages import AddPeer, SetIdentityOnline
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.processes import send_signal
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons, until_awaited

pytestmark = pytest.mark.asyncio_loop


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """alice and bob know each other, and have Chat, as ``default`` and as ``small``."""
    with start_two_daemons(echo=False) as daemons:
        for daemon, name, peer, key in (
            (daemons.one, "alice", "bob", daemons.bob),
            (daemons.two, "bob", "alice", daemons.alice),
        ):
            with daemon.client() as client:
                client.control(AddPeer(key, peer))
            add_binding(daemon, name, "Chat")
            add_binding(daemon, name, "Chat", "small", history=5, waiting=3, peers=1)
        yield daemons


@asynccontextmanager
async def conversing(
    daemon: Daemon, identity: str, peer: str, conversation: str, instance: str = "default"
) -> AsyncIterator[Conversation]:
    async with Client(daemon.home) as client:
        yield await ChatClient(client, identity, instance).with_peer(peer, conversation)


class Watcher:
    """Reader of a conversation: it keeps everything that ``events`` has yielded."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self.events: list[Event] = []
        self._task = asyncio.create_task(self._watch())

    async def __aenter__(self) -> Watcher:
        await self.until(lambda: any(isinstance(each, HistoryEnd) for each in self.events), "it has joined")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        async with aclosing(self._conversation.events(500)) as events:
            async for event in events:
                self.events.append(event)
                if isinstance(event, ChatMessage):
                    await self._conversation.mark_read(event)

    async def until(self, condition: object, what: str) -> None:
        async def holds() -> bool:
            if self._task.done():
                self._task.result()
            return bool(condition())  # type: ignore[operator]

        await until_awaited(holds, what)

    @property
    def texts(self) -> list[str]:
        return [each.text for each in self.events if isinstance(each, ChatMessage)]

    def marks(self, line: ChatMessage) -> list[str]:
        """Return the marks of an own message in the order of their events."""
        return [
            each.mark for each in self.events if isinstance(each, ChatMessage | StateChanged) and each.id == line.id
        ]

    @property
    def presence(self) -> str:
        return [each.presence for each in self.events if isinstance(each, HistoryEnd | Presence)][-1]


async def switch(daemon: Daemon, name: str, online: bool) -> None:
    async with Client(daemon.home) as client:
        await client.control(SetIdentityOnline(name, online))


async def texts(conversation: Conversation) -> list[str]:
    return [line.text for line in await conversation.history(limit=500)]


async def test_two_terminals_of_one_owner_and_one_of_the_peer_see_states_and_presence(
    daemons: TwoDaemons,
) -> None:
    async with (
        conversing(daemons.one, "alice", "bob", "marks") as alice,
        conversing(daemons.one, "alice", daemons.bob, "marks") as same,
        conversing(daemons.two, "bob", "alice", "marks") as bob,
        Watcher(alice) as first,
        Watcher(same) as second,
    ):
        assert (first.presence, second.presence) == ("away", "away")
        line = await alice.send("hello\nbob")
        for watcher in (first, second):
            await watcher.until(lambda w=watcher: w.marks(line) == ["kept", "delivered"], "delivered")
        async with Watcher(bob) as third:
            assert third.texts == ["hello\nbob"]
            await third.until(lambda: third.presence == "here", "alice is here")
            for watcher in (first, second):
                await watcher.until(lambda w=watcher: w.marks(line)[2:] == ["seen"], "seen")
                await watcher.until(lambda w=watcher: w.presence == "here", "bob is here")
            answer = await bob.send("hello alice")
            for watcher in (first, second, third):
                await watcher.until(lambda w=watcher: w.texts == ["hello\nbob", "hello alice"], "both see both")
            await third.until(lambda: third.marks(answer)[-1] == "seen", "seen by alice")
        for watcher in (first, second):
            await watcher.until(lambda w=watcher: w.presence == "away", "bob has left")


async def test_messages_to_an_offline_peer_arrive_once_and_in_order_despite_crashes(
    daemons: TwoDaemons,
) -> None:
    said = [f"message {number}" for number in range(120)]
    async with conversing(daemons.one, "alice", "bob", "offline") as alice:
        await switch(daemons.two, "bob", False)
        for number, text in enumerate(said):
            line = await alice.send(text)
            assert line.mark == "kept"
            assert await alice.send(text, id=line.id) == line  # as after an answer that was lost
            if number == 40:
                daemons.one.kill_actor("identity-alice")
        await switch(daemons.two, "bob", True)
        await asyncio.to_thread(daemons.two.wait_actor, "identity-bob")
        daemons.two.kill_actor("identity-bob")
        daemons.one.kill_actor("network")
        async with conversing(daemons.two, "bob", "alice", "offline") as bob:
            await until_awaited(lambda: has(bob, len(said)), "all of it has come")
            assert await texts(bob) == said
        await until_awaited(lambda: all_delivered(alice), "alice knows")
        assert await texts(alice) == said


async def has(conversation: Conversation, count: int) -> bool:
    return len(await conversation.history(limit=500)) >= count


async def all_delivered(conversation: Conversation) -> bool:
    return all(line.mark == "delivered" for line in await conversation.history(limit=500))


@pytest.mark.parametrize("actor", ["identity-alice", "identity-bob", "network"])
async def test_a_follower_sees_each_event_once_when_a_process_crashes(daemons: TwoDaemons, actor: str) -> None:
    name = f"looking-{actor}"
    async with (
        conversing(daemons.one, "alice", "bob", name) as alice,
        conversing(daemons.two, "bob", "alice", name) as bob,
        Watcher(alice) as first,
        Watcher(bob) as second,
    ):
        await alice.send("before")
        await second.until(lambda: second.texts == ["before"], "it works")
        daemon = daemons.two if actor == "identity-bob" else daemons.one
        daemon.kill_actor(actor)
        await asyncio.gather(alice.send("from alice"), bob.send("from bob"))
        for watcher in (first, second):
            await watcher.until(lambda w=watcher: len(w.texts) == 3, "both have all")
            assert sorted(watcher.texts) == ["before", "from alice", "from bob"]
            await watcher.until(lambda w=watcher: w.presence == "here", "both see each other again")


async def test_conversations_and_instances_are_apart(daemons: TwoDaemons) -> None:
    async with (
        conversing(daemons.one, "alice", "bob", "work") as work,
        conversing(daemons.one, "alice", "bob", "family") as family,
        conversing(daemons.one, "alice", "bob", "work", "small") as small,
        conversing(daemons.two, "bob", "alice", "work") as bob,
    ):
        for number, conversation in enumerate((work, family, small)):
            await conversation.send(str(number))
        await until_awaited(lambda: has(bob, 1), "it has come")
        assert await texts(bob) == ["0"]
        assert [await texts(each) for each in (work, family, small)] == [["0"], ["1"], ["2"]]
        async with Client(daemons.one.home) as client:
            known = {each.conversation: each for each in await ChatClient(client, "alice").conversations()}
        assert (known["work"].messages, known["work"].peer) == (1, daemons.bob)


async def test_limits_are_kept_and_say_so(daemons: TwoDaemons) -> None:
    async with (
        conversing(daemons.one, "alice", "bob", "limits", "small") as alice,
        conversing(daemons.two, "bob", "alice", "limits", "small") as bob,
    ):
        for number in range(8):
            await alice.send(str(number))
            await until_awaited(lambda: all_delivered(alice), "delivered")
        assert [await texts(each) for each in (alice, bob)] == [["3", "4", "5", "6", "7"]] * 2
        await switch(daemons.two, "bob", False)
        for _ in range(3):
            await alice.send("waits")
        with pytest.raises(ApplicationError, match="3 messages wait") as raised:
            await alice.send("one more")
        assert (raised.value.kind, raised.value.payload) == ("TooManyWaiting", {"limit": 3})
        await switch(daemons.two, "bob", True)
        await until_awaited(lambda: all_delivered(alice), "delivered")
        carol = daemons.one.identity("carol", online=False, echo=False)
        async with Client(daemons.one.home) as client:
            other = await ChatClient(client, "alice", "small").with_peer(carol)
            with pytest.raises(ApplicationError) as raised:
                await other.send("hello")
            assert raised.value.kind == "TooManyPeers"
            oneself = await ChatClient(client, "alice").with_peer(daemons.alice)
            with pytest.raises(ApplicationError, match="itself"):
                await oneself.send("hello")


async def test_a_peer_asks_for_nothing_that_is_the_owners_and_a_stranger_for_nothing(daemons: TwoDaemons) -> None:
    daemons.two.identity("mallory", echo=False)
    try:
        async with Client(daemons.two.home) as client:
            await assert_owners_requests_are_refused(client, daemons)
    finally:
        await switch(daemons.two, "mallory", False)


async def assert_owners_requests_are_refused(client: Client, daemons: TwoDaemons) -> None:
    for request in (
        GetHistory(daemons.bob),
        ListConversations(),
        {"type": "say", "peer": daemons.bob, "id": "0" * 32, "text": "x"},
    ):
        with pytest.raises(ApplicationError) as raised:
            await client.call("bob", daemons.alice, "Chat", request=request)
        assert raised.value.kind == "NotOwner"
        with pytest.raises(Denied):
            await client.call("mallory", daemons.alice, "Chat", request=request)
    with pytest.raises(ApplicationError, match="NotOwner"):
        await client.connect("bob", daemons.alice, "Chat", initial=FollowConversation(daemons.bob))
    session = await client.connect("bob", daemons.alice, "Chat", initial=OpenPresence("default"))
    await session.write(b"chatter")
    with pytest.raises(StreamReset):
        await session.read()
    session.reset()
    # A receipt for a message that is not there marks nothing, and is no error: it may have been forgotten here.
    viewed = ReadReceipt("default", [secrets.token_hex(16)])
    assert await client.call("bob", daemons.alice, "Chat", request=viewed, returns=Delivered) == Delivered()


async def test_why_messages_wait_is_said(daemons: TwoDaemons) -> None:
    """bob does not offer the protocol under this name."""
    add_binding(daemons.one, "alice", "Chat", "lonely")
    async with conversing(daemons.one, "alice", "bob", "default", "lonely") as alice, Watcher(alice) as watcher:
        await alice.send("is anybody there?")
        await watcher.until(lambda: any(isinstance(each, DeliveryProblem) for each in watcher.events), "it is said")
        add_binding(daemons.two, "bob", "Chat", "lonely")
        await watcher.until(lambda: DeliveryProblem("") in watcher.events, "and taken back")


async def test_a_conversation_names_its_peer(daemons: TwoDaemons) -> None:
    async with Client(daemons.one.home) as client:
        chat = ChatClient(client, "alice")
        assert [(await chat.with_peer(each)).name for each in ("bob", daemons.bob)] == ["bob", "bob"]
        with pytest.raises(PeerUnknown):
            await chat.with_peer("nobody")


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_piped_lines_are_kept_and_with_wait_delivered(daemons: TwoDaemons) -> None:
    two = "--conversation", "piped"
    done = daemons.one.cli(
        "chat", "bob", *two, "--wait", "--timeout", "50", input="one\n\ntwo \x1b[31m\\ \u202e\r\nthree"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    got = daemons.two.cli("chat", "alice", *two, "--last", "10")
    assert got.returncode == 0
    fields = [line.split("\t") for line in got.stdout.splitlines()]
    assert [each[1:] for each in fields] == [
        ["alice", "one"],
        ["alice", r"two \x1b[31m\\ \u202e"],
        ["alice", "three"],
    ]
    events = [
        json.loads(line) for line in daemons.one.cli("chat", "bob", *two, "--last", "2", "--json").stdout.splitlines()
    ]
    assert [event["type"] for event in events] == ["message", "message", "joined"]
    assert [event["text"] for event in events[:2]] == ["two \x1b[31m\\ \u202e", "three"]


def test_a_peer_that_does_not_come_in_time(daemons: TwoDaemons) -> None:
    with daemons.two.client() as client:
        client.control(SetIdentityOnline("bob", False))
        try:
            done = daemons.one.cli("chat", "bob", "--wait", "--timeout", "0.2", input="hello\n")
            assert done.returncode == 6
            kept = daemons.one.cli("chat", "bob", "--json", input="again\n").stdout.splitlines()
            assert [json.loads(line).get("mark") for line in kept] == [None, "kept"]
        finally:
            client.control(SetIdentityOnline("bob", True))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nobody"], 4, "nothing is known about nobody"),
        (["fastn1" + "q" * 100], 2, "peer add TICKET"),
        (["bob", "--instance", "none"], 7, "--instance none"),
        (["bob", "--conversation", "A B"], 2, "--conversation"),
        (["bob", "--timeout", "1"], 2, "--wait"),
        (["bob", "--as", "nobody"], 7, "nobody"),
    ],
)
def test_misuse(daemons: TwoDaemons, arguments: list[str], code: int, words: str) -> None:
    done = daemons.one.cli("chat", *arguments, input="hello\n")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_identity_without_the_protocol_is_told_how_to_get_it(daemons: TwoDaemons) -> None:
    daemons.one.identity("eve", echo=False)
    with daemons.one.client() as client:
        try:
            done = daemons.one.cli("chat", "bob", "--as", "eve", input="hello\n")
        finally:
            client.control(SetIdentityOnline("eve", False))
    assert (done.returncode, done.stdout) == (7, "")
    assert "add-protocol IDENTITY --protocol Chat" in done.stderr


def test_a_conversation_in_a_terminal(daemons: TwoDaemons) -> None:
    """Typed while messages arrive and the window changes; what a peer sends moves no cursor."""
    here = "--conversation", "terminal"
    with on_terminal(daemons.one.env, "chat", "bob", *here) as tty:
        tty.until(lambda rows: "bob is away" in rows, "it has joined")
        tty.type("hel")
        tty.until(lambda rows: "> hel" in rows, "what is typed")
        evil = "hi \x1b[2J\x1b]0;owned\x07 there"
        assert daemons.two.cli("chat", "alice", *here, input=evil).returncode == 0
        seen = r"bob  hi \x1b[2J\x1b]0;owned\x07 there"
        tty.until(lambda rows: any(row.endswith(seen) for row in rows) and "> hel" in rows, "bob's, and what is typed")
        assert b"\x1b]0;owned" not in tty.raw
        tty.type("lo bob\r")
        tty.until(lambda rows: any(row.endswith("me  hello bob  ✓✓") for row in rows) and ">" in rows, "delivered")

        tty.type("a draft that is longer than the window will be")
        tty.resize(12, 30)
        drawn = ["> a draft that is longer than", "the window will be", "bob is away"]
        tty.until(lambda rows: [row for row in rows if row in drawn] == drawn, "drawn anew")
        tty.type("\x03")  # gives the draft up
        tty.until(lambda rows: ">" in rows, "an empty line")

        many = "\n".join(f"line {number:02}" for number in range(20))
        assert daemons.two.cli("chat", "alice", *here, input=many).returncode == 0
        tty.until(lambda rows: any(row.endswith("line 19") for row in rows), "the last")
        tty.type("bye\r")
        tty.until(lambda rows: any(row.endswith("me  bye  ✓✓") for row in rows), "delivered")
        tty.type("\x04")
        assert tty.ends() == 0
        written = [
            row.split("  ", 1)[1] for row in [*tty.scrolled, *tty.rows] if " bob  line" in row or " me  bye" in row
        ]
        assert written == [*(f"line {number:02}" for number in range(20)), "bye  ✓✓"]
    with on_terminal(daemons.one.env, "chat", "bob", *here) as tty:
        tty.until(lambda rows: any(row.endswith("me  bye  ✓✓") for row in rows), "the history")
        tty.type("\x03")
        assert tty.ends() == 130


def test_a_ctrl_d_that_the_terminal_has_turned_into_nul_ends_the_conversation(daemons: TwoDaemons) -> None:
    """A terminal that cannot redraw does so with one that is typed while a message is written."""
    with on_terminal(daemons.one.env, "chat", "bob", "--conversation", "nul", term="dumb") as tty:
        tty.until(lambda rows: any(row.startswith(">") for row in rows), "an empty line")
        tty.type("\x00")
        assert tty.ends() == 0


@pytest.mark.parametrize(
    ("term", "locale"), [("xterm", "C.UTF-8"), ("dumb", "C.UTF-8"), ("", "C.UTF-8"), ("xterm", "C"), ("dumb", "C")]
)
def test_bytes_that_are_no_text_are_taken_on_any_terminal(daemons: TwoDaemons, term: str, locale: str) -> None:
    """Typed or pasted in another encoding: nothing ends, and nothing else of the line is lost."""
    here = "--conversation", f"bytes-{term or 'none'}-{locale.lower().replace('.', '')}"
    env = {**daemons.one.env, "LC_ALL": locale}
    with on_terminal(env, "chat", "bob", *here, term=term) as tty:
        tty.until(lambda rows: any(row.startswith(">") for row in rows), "an empty line")
        tty.type(b"caf\xe9 au lait gr\xc3\xbc\xc3\x9fe\xff\r")
        eventually(lambda: "lait" in kept(daemons, *here), "it is kept")
        assert daemons.two.cli("chat", "alice", *here, input="and here\n").returncode == 0
        tty.until(lambda rows: any(row.endswith("bob  and here") for row in rows), "bob's is shown at once")
        tty.type("\x04")
        assert tty.ends() == 0
    assert kept(daemons, *here).splitlines()[0].split("\t")[2] == "caf\ufffd au lait grüße\ufffd"


def kept(daemons: TwoDaemons, *options: str) -> str:
    return daemons.one.cli("chat", "bob", *options, "--last", "9").stdout


def test_a_chat_that_was_suspended_goes_on(daemons: TwoDaemons) -> None:
    """Ctrl-Z and fg: what was being typed is still there."""
    with on_terminal(daemons.one.env, "chat", "bob", "--conversation", "suspended") as tty:
        tty.until(lambda rows: "bob is away" in rows, "it has joined")
        tty.type("half a")
        tty.until(lambda rows: "> half a" in rows, "what is typed")
        send_signal(tty.pid, signal.SIGSTOP)
        os.waitpid(tty.pid, os.WUNTRACED)
        os.kill(tty.pid, signal.SIGCONT)
        tty.type(" line\r")
        tty.until(lambda rows: any(row.endswith("me  half a line  ✓✓") for row in rows), "delivered")
        tty.type("\x04")
        assert tty.ends() == 0


def test_piped_lines_that_are_no_text(daemons: TwoDaemons) -> None:
    """A line that ends in the middle of a character is none, either."""
    here = "--conversation", "piped-bytes"
    done = subprocess.run(
        [*CLI, "chat", "bob", *here],
        input=b"caf\xe9\nlast \xe2\x82",
        env=daemons.one.env,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[2] for line in kept(daemons, *here).splitlines()] == ["caf\ufffd", "last \ufffd"]
