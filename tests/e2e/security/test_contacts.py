"""Contacts as a new owner meets them: a stranger calls, is accepted, grouped, blocked; the table says who may what."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from fastn_p2p_client.errors import ConnectionLost, Denied, P2PError, PeerBlocked, PeerUnreachable
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.sync import Client, Session
from tests.support.daemons import Daemon, eventually
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons

NOT_SERVED = (PeerUnreachable, ConnectionLost)
"""Errors of a caller whose connections are closed."""


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """bob offers Echo to the address book, and two other instances to himself and to everyone."""
    with start_two_daemons(echo=False) as made:
        add_binding(made.two, "bob", "Echo", "peers", "peers")
        add_binding(made.two, "bob", "Echo", "own", made.bob)
        add_binding(made.two, "bob", "Echo", "open", "everyone")
        add_binding(made.two, "bob", "Trial")
        yield made


@pytest.fixture
def two(daemons: TwoDaemons) -> Iterator[Client]:
    """A client of bob's daemon, which does not know alice before and after the test."""
    with daemons.two.client() as client:
        yield client
        client.control(m.UnblockPeer(daemons.alice))
        for peer in client.control(m.ListPeers()).peers:
            client.control(m.RemovePeer(peer.name))
        for group in client.control(m.ListGroups()).groups:
            client.control(m.DeleteGroup(group.name))


def cli(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    """Run a command; return both outputs."""
    done = daemon.cli(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def call(daemons: TwoDaemons, instance: str) -> type[P2PError] | None:
    """Call bob as alice. Return the error, or None after a reply."""
    with daemons.one.client() as client:
        try:
            client.call("alice", daemons.bob, "Echo", instance, {"message": "hi"}, timeout=60)
        except P2PError as error:
            return type(error)
    return None


def ended(session: Session) -> bool:
    """Wait for the end of a session that its handler keeps open. Return whether it is an error."""
    try:
        return session.read(1) != b""
    except P2PError:
        return True


def log_lines(daemon: Daemon, word: str) -> list[str]:
    """Return the lines of the network process's log that have a word."""
    return [line for line in (daemon.home.logs / "network.log").read_text().splitlines() if word in line]


def test_stranger_is_listed_accepted_and_served(daemons: TwoDaemons, two: Client) -> None:
    assert call(daemons, "peers") is Denied
    assert call(daemons, "own") is Denied
    assert call(daemons, "own") is Denied
    assert call(daemons, "open") is None
    (pending,) = two.control(m.ListPendingPeers()).knocks
    assert pending.id52 == daemons.alice
    assert [(each.identity, each.protocol, each.instance, each.count) for each in pending.wanted] == [
        ("bob", "Echo", "own", 2),
        ("bob", "Echo", "peers", 1),
    ]
    assert daemons.two.status().pending == 1
    assert "1 stranger refused: `fastn-p2p peer pending`" in daemons.two.shown_status()
    assert daemons.alice in cli(daemons.two, "peer", "pending")
    assert json.loads(cli(daemons.two, "peer", "pending", "--json"))[0]["count"] == 3

    said = cli(daemons.two, "peer", "accept", daemons.alice[:6], "--name", "ally")
    assert daemons.alice in said
    assert "bob/Echo/own, which it wanted, still refuses it" in said
    assert two.control(m.ListPendingPeers()).knocks == []
    assert call(daemons, "peers") is None
    assert call(daemons, "own") is Denied
    assert two.control(m.ListPendingPeers()).knocks == [], "a peer of the address book is no stranger"
    cli(daemons.two, "peer", "accept", daemons.alice, "--name", "ally", "--allow", "bob/Echo/own")
    assert call(daemons, "own") is None
    two.control(m.SetProtocol("bob", "Echo", "own", (daemons.bob,)))


def test_accepted_peer_without_a_name_gets_one(daemons: TwoDaemons, two: Client) -> None:
    assert two.control(m.AcceptPeer(daemons.alice)).peer.name == f"peer-{daemons.alice[:6]}"
    assert two.control(m.AcceptPeer(daemons.alice, "ally")).renamed_from == f"peer-{daemons.alice[:6]}"
    assert two.control(m.AcceptPeer(daemons.alice)).peer.name == "ally", "it has a name"


def test_new_stranger_ends_a_long_poll(daemons: TwoDaemons, two: Client) -> None:
    seen = two.control(m.ListPendingPeers()).revision
    watching = subprocess.Popen(
        [*Daemon.command[:-1], "peer", "pending", "--watch", "--json"],
        env={**os.environ, **daemons.two.env},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert call(daemons, "peers") is Denied
        reply = two.control(m.ListPendingPeers(seen, 30_000), timeout=40)
        assert [each.id52 for each in reply.knocks] == [daemons.alice]
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["id52"] == daemons.alice
    finally:
        watching.kill()
        watching.communicate()


def test_changes_of_a_group_count_at_once_and_end_sessions(daemons: TwoDaemons, two: Client) -> None:
    two.control(m.AddPeer(daemons.alice, "ally"))
    two.control(m.CreateGroup("friends"))
    two.control(m.SetProtocol("bob", "Echo", "peers", ("group:friends",)))
    two.control(m.SetProtocol("bob", "Trial", "default", ("group:friends",)))
    try:
        assert call(daemons, "peers") is Denied
        two.control(m.ChangeGroup("friends", ("ally",)))
        assert call(daemons, "peers") is None
        with daemons.one.client() as one:
            session = one.connect("alice", daemons.bob, "Trial", initial={"do": "hold"})
            two.control(m.ChangeGroup("friends", (), (daemons.alice,)))
            assert ended(session)
        assert call(daemons, "peers") is Denied
        two.control(m.ChangeGroup("friends", (daemons.alice,)))
        said = cli(daemons.two, "peer", "remove", "ally")
        assert "It was in: friends" in said
        assert call(daemons, "peers") is Denied
        said = cli(daemons.two, "peer", "group", "delete", "friends")
        assert "bob/Echo/peers still allows group:friends, which admits nobody now" in said
    finally:
        two.control(m.SetProtocol("bob", "Echo", "peers", ("peers",)))
        two.control(m.SetProtocol("bob", "Trial", "default", ("everyone",)))


def test_a_group_with_an_unknown_member_is_not_created(daemons: TwoDaemons, two: Client) -> None:
    assert "nobody" in cli(daemons.two, "peer", "group", "create", "friends", "nobody", code=7)
    assert two.control(m.ListGroups()).groups == []


def test_table_says_who_may_use_what_and_why(daemons: TwoDaemons, two: Client) -> None:
    two.control(m.AddPeer(daemons.alice, "ally"))
    two.control(m.CreateGroup("friends"))
    two.control(m.ChangeGroup("friends", ("ally",)))
    two.control(m.SetProtocol("bob", "Echo", "own", ("group:friends",)))
    try:
        table = {each.instance: each for each in two.control(m.GetAccess("bob")).bindings if each.protocol == "Echo"}
        assert {name: [(entry.who, entry.why) for entry in each.admits] for name, each in table.items()} == {
            "default": [("everyone", "everyone")],
            "open": [("everyone", "everyone")],
            "own": [("ally", "group:friends")],
            "peers": [("peers", "peers")],
        }
        lines = cli(daemons.two, "access", "bob").splitlines()
        assert "bob/Echo/own\tally\tgroup:friends" in lines
        assert "bob/Echo/peers\tpeers (1)\tpeers" in lines
        lines = cli(daemons.two, "access", "--peer", "ally").splitlines()
        assert "bob/Echo/own\tyes\tgroup:friends" in lines
        two.control(m.ChangeGroup("friends", (), ("ally",)))
        lines = cli(daemons.two, "access", "--peer", "ally").splitlines()
        assert "bob/Echo/own\tno\tno entry admits it" in lines
        two.control(m.SetIdentityOnline("bob", False))
        offline = {each.instance: each.allow for each in two.control(m.GetAccess("bob")).bindings}
        assert offline["own"] == ["group:friends"], "an offline identity has its access lists on disk"
    finally:
        two.control(m.SetIdentityOnline("bob", True))
        two.control(m.SetProtocol("bob", "Echo", "own", (daemons.bob,)))


def test_blocked_peer_loses_what_it_has_and_is_refused_at_the_handshake(daemons: TwoDaemons, two: Client) -> None:
    two.control(m.AddPeer(daemons.alice, "ally"))
    with daemons.one.client() as one:
        session = one.connect("alice", daemons.bob, "Trial", initial={"do": "hold"})
        cli(daemons.two, "peer", "block", "ally")
        assert ended(session)
    eventually(lambda: not daemons.two.status().connections, "the connection has ended")
    endpoint = daemons.one.status().endpoint[:10]
    lines = log_lines(daemons.two, endpoint)
    assert lines
    assert call(daemons, "open") in NOT_SERVED, "also where everyone may call"
    assert call(daemons, "open") in NOT_SERVED
    assert log_lines(daemons.two, endpoint) == lines, "a blocked peer writes no line"
    status = daemons.two.status()
    assert (status.blocked, status.pending) == (1, 0)
    eventually(lambda: not daemons.two.status().connections, "no connection of it is left")
    with pytest.raises(PeerBlocked):
        two.call("bob", "ally", "Echo", "default", {"message": "hi"})
    assert [entry.problem for each in two.control(m.GetAccess("", "ally")).bindings for entry in each.admits] == [
        "it is blocked"
    ] * len(two.control(m.GetAccess()).bindings)
    assert daemons.alice in cli(daemons.two, "peer", "blocked")
    cli(daemons.two, "peer", "unblock", "ally")
    assert call(daemons, "open") is None


def test_other_identity_of_the_same_daemon_is_not_blocked(daemons: TwoDaemons, two: Client) -> None:
    """anna and alice share one connection: only alice's requests are refused."""
    daemons.one.identity("anna", echo=False)
    try:
        with daemons.one.client() as one:
            assert one.call("anna", daemons.bob, "Echo", "open", {"message": "hi"}) == {"echoed": "Echo: hi"}
            assert call(daemons, "open") is None
            two.control(m.BlockPeer(daemons.alice))
            assert one.call("anna", daemons.bob, "Echo", "open", {"message": "hi"}) == {"echoed": "Echo: hi"}
            assert call(daemons, "open") is not None
            assert one.call("anna", daemons.bob, "Echo", "open", {"message": "hi"}) == {"echoed": "Echo: hi"}
    finally:
        with daemons.one.client() as one:
            one.control(m.DeleteIdentity("anna"))


def test_own_identity_cannot_be_blocked(daemons: TwoDaemons, two: Client) -> None:
    with pytest.raises(P2PError, match="an identity of this daemon"):
        two.control(m.BlockPeer(daemons.bob))
    assert two.control(m.ListBlocked()).blocked == []


def test_lists_survive_a_restart(daemons: TwoDaemons, two: Client) -> None:
    assert call(daemons, "peers") is Denied
    two.control(m.CreateGroup("friends"))
    two.control(m.ChangeGroup("friends", (daemons.alice,)))
    before = two.control(m.ListPendingPeers()).knocks
    assert [each.id52 for each in before] == [daemons.alice]
    daemons.two.stop()
    daemons.two.start()
    assert two.control(m.ListPendingPeers()).knocks == before
    two.control(m.BlockPeer(daemons.alice[:8]))
    daemons.two.stop()
    daemons.two.start()
    assert [each.id52 for each in two.control(m.ListBlocked()).blocked] == [daemons.alice]
    assert call(daemons, "open") in NOT_SERVED
    assert [each.members for each in two.control(m.ListGroups()).groups] == [[daemons.alice]]


def test_audit_log_says_who_was_let_in_who_changed_what_and_what_was_signed(daemons: TwoDaemons, two: Client) -> None:
    two.control(m.AddPeer(daemons.alice, "ally"))
    assert call(daemons, "peers") is None
    cli(daemons.two, "peer", "block", "ally")

    def audit() -> list[dict[str, Any]]:
        return [json.loads(line) for line in cli(daemons.two, "log", "audit", "--json", "--since", "1h").splitlines()]

    def find(**wanted: object) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [line for line in audit() if all(line.get(name) == value for name, value in wanted.items())]

        return eventually(found, f"the audit log has {wanted}", interval=0.1)[0]

    blocked = find(actor="gateway", event="command", command="BlockPeer", peer="ally")
    assert (blocked["outcome"], blocked["program"], blocked["uid"]) == ("done", "fastn-p2p", os.getuid())
    admitted = find(actor="network", event="admitted", peer=daemons.alice, binding="bob/Echo/peers")
    assert admitted["by"] == "peers"
    find(actor="network", event="stranger-refused", peer=daemons.alice)
    endpoint = daemons.two.status().endpoint
    assert find(actor="vault", event="delegation-signed", identity="bob")["endpoint"] == endpoint
    find(actor="vault", event="record-signed", identity="bob")
    assert daemons.two.home.audit_log.stat().st_mode & 0o777 == 0o600
    assert "BlockPeer" in cli(daemons.two, "log", "audit")


def test_further_lines_are_followed(daemons: TwoDaemons, two: Client) -> None:
    following = subprocess.Popen(
        [*Daemon.command[:-1], "log", "audit", "--json", "--follow"],
        env={**os.environ, **daemons.two.env},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None
        following.stdout.readline()
        two.control(m.CreateGroup("followed"))
        lines = map(json.loads, following.stdout)
        assert next(line for line in lines if line.get("name") == "followed")["command"] == "CreateGroup"
    finally:
        following.kill()
        following.communicate()
