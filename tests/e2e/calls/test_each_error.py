"""Each error has a class and a code of its own, and says what to do: on the command line, and in both APIs.

One table: what is asked, and the error that comes back. Each line is tried in three ways, and the three must agree in
class, code and fields; the command prints exactly the error's words, and nothing on standard output.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import fastn_p2p_client.errors as e
from fastn_p2p.cli import main
from fastn_p2p.console.exit_codes import EXITS, ExitCode
from fastn_p2p_client import Client
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.limits import MAX_CALLS_PER_CLIENT, MAX_PAYLOAD
from tests.support.daemons import Daemon
from tests.support.requests import STRANGER, Call, Command, assert_same_error, known_nowhere, ticket_of
from tests.support.two_daemons import TwoDaemons, binding_of, until, wait_idle


@dataclass
class Case:
    question: Call | Command
    error: e.P2PError | e.ApplicationError
    advice: str
    """A part of the words that says what is wrong or what to do next."""


def add(protocol: str, instance: str = "new", config: Any = None, identity: str = "alice") -> Command:
    text = "{}" if config is None else json.dumps(config)
    line = ["add-protocol", identity, "--protocol", protocol, "--alias", instance, "--config", text]
    return Command(line, m.AddProtocol(identity, protocol, instance), text.encode())


def bad_name(name: str, what: str, reason: str) -> e.InvalidName:
    return e.InvalidName(name=name, what=what, reason=reason)


LOWER = "it starts with a lower-case letter, then lower-case letters, digits, - and _"
INSTANCE = "it starts with a lower-case letter or a digit, then lower-case letters, digits, - and _"

CASES: dict[str, Callable[[TwoDaemons], Case]] = {
    # the peer
    "a name that is nobody's": lambda w: Case(Call("nobody"), e.PeerUnknown(peer="nobody"), "fastn-p2p peer add"),
    "the name of an identity that is not online": lambda w: Case(
        Call("nobody"), e.PeerUnknown(peer="nobody"), "An identity of this daemon has to be online"
    ),
    "an ID52 that nobody knows": lambda w: Case(Call(STRANGER), known_nowhere(), "Ask for its ticket"),
    "an ID52 with a typing error": lambda w: Case(
        Call(w.bob[:-2] + "z0"),
        e.InvalidKey(text=w.bob[:-2] + "z0", reason="'z' is not in the alphabet 0-9 a-v"),
        "Copy the ID52 again",
    ),
    "a ticket with a part missing": lambda w: Case(
        Call("fastn1" + "0" * 100), e.InvalidTicket(reason="its content is not a record"), "Ask the peer for a new one"
    ),
    "a remote identity that is offline": lambda w: Case(
        Call("dora"), e.PeerOffline(peer=id52_of(w.two, "dora")), "not online there"
    ),
    "a protocol that the peer does not have": lambda w: Case(
        Call(w.bob, "Nope"), e.ProtocolNotFound(peer=w.bob, protocol="Nope"), "does not offer Nope"
    ),
    "an instance that the peer does not have": lambda w: Case(
        Call(w.bob, "Echo", "nope"),
        e.InstanceNotFound(peer=w.bob, protocol="Echo", instance="nope"),
        "no instance 'nope'",
    ),
    "a command that the protocol does not have": lambda w: Case(
        Call(w.bob, command="settings.nope"),
        e.CommandNotFound(peer=w.bob, protocol="Echo", command="settings.nope"),
        "no command 'settings.nope'",
    ),
    "what cannot be a command": lambda w: Case(
        Call(w.bob, command="N" * 65),
        e.InvalidName(name="N" * 65, what="a command", reason="it has 65 characters, the limit is 64"),
        "cannot be the name of a command",
    ),
    "a protocol that is not for us": lambda w: Case(
        Call(w.bob, "Echo", "private"),
        e.Denied(peer=w.bob, protocol="Echo", instance="private"),
        "fastn-p2p peer accept",
    ),
    # the call
    "no answer in time": lambda w: Case(
        Call(w.bob, "Trial", request={"do": "wait"}, timeout=0.75), e.DeadlineExceeded(seconds=0.75), "within 0.75 s"
    ),
    "a request that is too large": lambda w: Case(
        Call(w.bob, request="x" * MAX_PAYLOAD),
        e.PayloadTooLarge(size=MAX_PAYLOAD + 5, limit=MAX_PAYLOAD),
        "the limit is 16777216",
    ),
    "a reply that is too large": lambda w: Case(
        Call(w.bob, "Trial", request={"do": "return", "size": MAX_PAYLOAD}),
        e.PayloadTooLarge(size=MAX_PAYLOAD + 5, limit=MAX_PAYLOAD),
        "the limit is 16777216",
    ),
    "a request with a wrong type": lambda w: Case(
        Call(w.bob, request={"message": 7}),
        e.BadRequest(protocol="Echo", reason="Expected `str`, got `int` - at `$.message`"),
        "$.message",
    ),
    "a request without what is needed": lambda w: Case(
        Call(w.bob, request={}),
        e.BadRequest(protocol="Echo", reason="Object missing required field `message`"),
        "`message`",
    ),
    "an empty message": lambda w: Case(
        Call(w.bob, request={"message": ""}),
        e.ApplicationError("MessageEmpty", "the message is empty", {"length": 0, "max_length": 1000}),
        "MessageEmpty",
    ),
    "a message that is too long": lambda w: Case(
        Call(w.bob, "Echo", "short", {"message": "x" * 11}),
        e.ApplicationError(
            "MessageTooLong", "the message has 11 characters, 10 are allowed", {"length": 11, "max_length": 10}
        ),
        "10 are allowed",
    ),
    "a handler that crashes": lambda w: Case(
        Call(w.bob, "Trial", request={"do": "raise"}),
        e.HandlerFailed(peer=w.bob, protocol="Trial", reason="RuntimeError"),
        "the handler of Trial",
    ),
    # the caller
    "a call as an identity that is offline": lambda w: Case(
        Call(w.bob, identity="erin"), e.IdentityOffline(identity="erin"), "fastn-p2p identity-online erin"
    ),
    "a call as one of several": lambda w: Case(
        Call(w.bob, identity=None), e.IdentityAmbiguous(online=["alice", "fred"]), "--as NAME"
    ),
    # identities
    "bring online what is not there": lambda w: Case(
        Command(["identity-online", "nobody"], m.SetIdentityOnline("nobody", True)),
        e.IdentityNotFound(identity="nobody"),
        "fastn-p2p create-identity nobody",
    ),
    "take offline what is not there": lambda w: Case(
        Command(["identity-offline", "nobody"], m.SetIdentityOnline("nobody", False)),
        e.IdentityNotFound(identity="nobody"),
        "fastn-p2p identity list",
    ),
    "delete what is not there": lambda w: Case(
        Command(["delete-identity", "nobody", "--yes"], m.DeleteIdentity("nobody")),
        e.IdentityNotFound(identity="nobody"),
        "fastn-p2p identity list",
    ),
    "create what is there": lambda w: Case(
        Command(["create-identity", "alice"], m.CreateIdentity("alice")),
        e.IdentityExists(identity="alice"),
        "Choose another name",
    ),
    "a name that no identity can have": lambda w: Case(
        Command(["create-identity", "Alice"], m.CreateIdentity("Alice")),
        bad_name("Alice", "an identity", LOWER),
        "lower-case",
    ),
    "a name that is a path": lambda w: Case(
        Command(["create-identity", "../../alice"], m.CreateIdentity("../../alice")),
        bad_name("../../alice", "an identity", LOWER),
        "lower-case",
    ),
    "an empty name": lambda w: Case(
        Command(["create-identity", ""], m.CreateIdentity("")), bad_name("", "an identity", "it is empty"), "empty"
    ),
    "a name that is too long": lambda w: Case(
        Command(["create-identity", "a" * 65], m.CreateIdentity("a" * 65)),
        bad_name("a" * 65, "an identity", "it has 65 characters, the limit is 64"),
        "the limit is 64",
    ),
    # protocols
    "a protocol for nobody": lambda w: Case(
        add("Echo", identity="nobody"), e.IdentityNotFound(identity="nobody"), "fastn-p2p create-identity nobody"
    ),
    "a protocol that is not installed": lambda w: Case(
        add("Nope"),
        e.ProtocolNotInstalled(
            protocol="Nope", installed=["Chat", "Conformance", "Echo", "FileTransfer", "Mail", "Trial", "Tunnel", "Web"]
        ),
        "installed: Chat, ",
    ),
    "a protocol that is there already": lambda w: Case(
        add("Echo", "default"),
        e.BindingExists(identity="alice", protocol="Echo", instance="default"),
        "Choose another --instance",
    ),
    "a name that no protocol can have": lambda w: Case(
        add("no-good"), bad_name("no-good", "a protocol", "it starts with a letter, then letters and digits"), "letters"
    ),
    "a name that no instance can have": lambda w: Case(
        add("Echo", "No"), bad_name("No", "an instance", INSTANCE), "lower-case"
    ),
    "a config with a wrong type": lambda w: Case(
        add("Echo", config={"max_length": "long"}),
        e.InvalidConfig(protocol="Echo", reason="Expected `int`, got `str` - at `$.max_length`"),
        "$.max_length",
    ),
    "a config with a wrong value": lambda w: Case(
        add("Echo", config={"max_length": 0}),
        e.InvalidConfig(protocol="Echo", reason="Expected `int` >= 1 - at `$.max_length`"),
        ">= 1",
    ),
    "a config with a typing error": lambda w: Case(
        add("Echo", config={"max_lenght": 5}),
        e.InvalidConfig(protocol="Echo", reason="Object contains unknown field `max_lenght`"),
        "`max_lenght`",
    ),
    "a config for an identity that is offline": lambda w: Case(
        add("Echo", config={"max_length": 0}, identity="erin"),
        e.InvalidConfig(protocol="Echo", reason="Expected `int` >= 1 - at `$.max_length`"),
        ">= 1",
    ),
    "remove a protocol that is not there": lambda w: Case(
        Command(
            ["remove-protocol", "alice", "--protocol", "Echo", "--alias", "nope"],
            m.RemoveProtocol("alice", "Echo", "nope"),
        ),
        e.BindingNotFound(identity="alice", protocol="Echo", instance="nope"),
        "fastn-p2p status",
    ),
    "remove a protocol from nobody": lambda w: Case(
        Command(["remove-protocol", "nobody", "--protocol", "Echo"], m.RemoveProtocol("nobody", "Echo", "default")),
        e.IdentityNotFound(identity="nobody"),
        "fastn-p2p identity list",
    ),
    # peers and tickets
    "a ticket of nobody": lambda w: Case(
        Command(["ticket", "nobody"], m.GetTicket("nobody")),
        e.IdentityNotFound(identity="nobody"),
        "fastn-p2p identity list",
    ),
    "a ticket of one that is offline": lambda w: Case(
        Command(["ticket", "erin"], m.GetTicket("erin")),
        e.IdentityOffline(identity="erin"),
        "fastn-p2p identity-online erin",
    ),
    "a ticket of one of several": lambda w: Case(
        Command(["ticket"], m.GetTicket("")), e.IdentityAmbiguous(online=["alice", "fred"]), "alice, fred"
    ),
    "a peer's name that is taken": lambda w: Case(
        Command(["peer", "add", STRANGER, "--name", "dora"], m.AddPeer(STRANGER, "dora")),
        e.PeerNameTaken(name="dora"),
        "fastn-p2p peer remove dora",
    ),
    "a name that no peer can have": lambda w: Case(
        Command(["peer", "add", w.bob, "--name", "Bob"], m.AddPeer(w.bob, "Bob")),
        bad_name("Bob", "a peer", LOWER),
        "lower-case",
    ),
    "a peer's name that looks like a key": lambda w: Case(
        Command(["peer", "add", w.bob, "--name", "v" * 52], m.AddPeer(w.bob, "v" * 52)),
        bad_name("v" * 52, "a peer", "it looks like an ID52"),
        "looks like an ID52",
    ),
    "a peer that is no key": lambda w: Case(
        Command(["peer", "add", "bob", "--name", "bob"], m.AddPeer("bob", "bob")),
        e.InvalidKey(text="bob", reason="it has 3 characters, an ID52 has 52"),
        "an ID52 has 52",
    ),
    "a peer with a broken ticket": lambda w: Case(
        Command(["peer", "add", broken(ticket_of(w.two, "bob")), "--name", "bob"], m.AddPeer(broken("fastn1"), "bob")),
        e.InvalidTicket(reason="a part of it is missing, or a character is wrong"),
        "Ask the peer for a new one",
    ),
    "forget a peer that is not there": lambda w: Case(
        Command(["peer", "remove", "nobody"], m.RemovePeer("nobody")),
        e.PeerNameUnknown(name="nobody"),
        "fastn-p2p peer list",
    ),
    "block a peer that is not there": lambda w: Case(
        Command(["peer", "block", "nobody"], m.BlockPeer("nobody")),
        e.PeerNameUnknown(name="nobody"),
        "fastn-p2p peer list",
    ),
    "a group that is not there": lambda w: Case(
        Command(["peer", "group", "delete", "friends"], m.DeleteGroup("friends")),
        e.GroupNotFound(group="friends"),
        "fastn-p2p peer group create friends",
    ),
    "accept a binding that is none": lambda w: Case(
        Command(
            ["peer", "accept", STRANGER, "--allow", "alice/Nothing"],
            m.AcceptPeer(STRANGER, "", ("alice/Nothing/default",)),
        ),
        e.BindingNotFound(identity="alice", protocol="Nothing", instance="default"),
        "fastn-p2p",
    ),
}


def broken(ticket: str) -> str:
    return ticket + "z" * 64


def id52_of(daemon: Daemon, name: str) -> str:
    with daemon.client() as client:
        reply = client.control(m.ListIdentities())
    assert isinstance(reply, m.IdentityList)
    return next(each.id52 for each in reply.identities if each.name == name)


@pytest.fixture(scope="module")
def crowd(daemons: TwoDaemons) -> TwoDaemons:
    """More identities: fred is online at ``one`` and erin is not; dora is offline at ``two`` and a peer of ``one``."""
    daemons.one.identity("fred", echo=False)
    daemons.one.identity("erin", online=False)
    daemons.two.identity("dora")
    ticket = ticket_of(daemons.two, "dora")
    with daemons.one.client() as client:
        client.control(m.AddPeer(ticket, "dora"))
    with daemons.two.client() as client:
        client.control(m.SetIdentityOnline("dora", False))
    return daemons


@pytest.mark.parametrize("name", CASES)
def test_each_error_is_its_own_on_the_command_line_and_in_both_apis(
    crowd: TwoDaemons, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name](crowd)
    question, expected = case.question, case.error

    with crowd.one.client() as client:
        try:
            question.blocking(client)
        except (e.P2PError, e.ApplicationError) as error:
            assert_same_error(error, expected)
        else:
            pytest.fail("there was no error")

    async def ask() -> None:
        async with Client(crowd.one.home) as client:
            with pytest.raises(type(expected)) as caught:
                await question.awaiting(client)
            assert_same_error(caught.value, expected)

    asyncio.run(ask())

    monkeypatch.setenv("FASTN_HOME", str(crowd.one.home.path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((question.stdin() or "").encode())))
    code = main(question.arguments())
    out, err = capsys.readouterr()
    assert out == ""
    assert case.advice in err
    if isinstance(expected, e.P2PError):
        next_step = ""
        if isinstance(question, Call) and isinstance(expected, e.DeadlineExceeded):
            next_step = f"See whether the peer's daemon answers: fastn-p2p ping {question.peer}\n"
        assert err == f"fastn-p2p: {expected}\n{next_step}"
        assert code == EXITS[expected.code]
    else:
        data = json.dumps(expected.payload, separators=(",", ":"))
        assert err == f"fastn-p2p: application error: {expected}\n{data}\n"
        assert code == ExitCode.APPLICATION


def test_nothing_was_changed_by_errors(crowd: TwoDaemons) -> None:
    """The table above leaves no identity, binding or peer behind, and nothing in flight."""
    for daemon in (crowd.one, crowd.two):
        wait_idle(daemon)
    status = crowd.one.status()
    assert [identity.name for identity in status.identities] == ["alice", "erin", "fred"]
    alice = next(identity for identity in status.identities if identity.name == "alice")
    assert sorted((b.protocol, b.instance) for b in alice.bindings) == [
        ("Echo", "default"),
        ("Echo", "large"),
        ("Echo", "private"),
        ("Echo", "short"),
        ("Trial", "default"),
    ]
    assert [peer.name for peer in status.peers] == ["dora"]
    assert [each for each in status.warnings if not each.startswith("the sandbox of")] == []  # an older kernel


async def test_a_reply_that_is_not_what_was_expected(daemons: TwoDaemons, client: Client) -> None:
    """Only programs say what they expect."""
    expected = e.BadReply(protocol="Echo", reason="Expected `int`, got `object`")
    with pytest.raises(e.BadReply) as caught:
        await client.call("alice", daemons.bob, "Echo", request={"message": "hi"}, returns=int)
    assert_same_error(caught.value, expected)
    with daemons.one.client() as blocking, pytest.raises(e.BadReply) as caught:
        blocking.call("alice", daemons.bob, "Echo", request={"message": "hi"}, returns=int)
    assert_same_error(caught.value, expected)


async def test_too_many_calls_at_once(daemons: TwoDaemons, client: Client) -> None:
    """The one above the limit is refused at once; nothing happens to the others."""
    many = [
        asyncio.ensure_future(client.call("alice", daemons.alice, "Trial", request={"do": "wait"}, timeout=50))
        for _ in range(MAX_CALLS_PER_CLIENT + 1)
    ]
    done, others = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = done

    def in_flight() -> int:
        return binding_of(daemons.one, "alice", "Trial").in_flight

    await until(lambda: in_flight() == MAX_CALLS_PER_CLIENT, "all others are in flight")
    assert not any(call.done() for call in others)
    one = others.pop()
    one.cancel()
    await asyncio.wait([one])
    assert await client.call("alice", daemons.alice, "Trial", request={"value": 1}) == 1  # there is room again
    for call in others:
        call.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    error = refused.exception()
    assert isinstance(error, e.Overloaded)
    assert error.fields() == {"what": "calls in flight from this program", "limit": MAX_CALLS_PER_CLIENT}
    await asyncio.to_thread(wait_idle, daemons.one)
