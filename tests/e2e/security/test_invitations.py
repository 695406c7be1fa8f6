"""An invitation lets its bearer in for just that: from the command that makes it to the one that takes it back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client.errors import (
    BadSignature,
    BindingNotFound,
    Denied,
    IdentityAmbiguous,
    InvitationNotFound,
    InvitationNotRedeemed,
    InvitationRefused,
    P2PError,
    PeerNameTaken,
)
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.sync import Client
from fastn_p2p_client.tickets import Ticket
from tests.support.daemons import Daemon, eventually
from tests.support.two_daemons import TwoDaemons, add_binding, start_two_daemons


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """alice invites at ``one``: her Echo is for peers, with two instances. ``two`` finds her by the ticket alone."""
    with start_two_daemons(share_host=False, echo=False) as made:
        with made.one.client() as client:
            client.control(m.SetProtocol("alice", "Echo", "default", ("peers",)))
        add_binding(made.one, "alice", "Echo", "work", "peers")
        add_binding(made.one, "alice", "Trial", "default", "peers")
        yield made


@pytest.fixture
def one(daemons: TwoDaemons) -> Iterator[Client]:
    """A client of the inviter's daemon, which knows nobody before and after the test."""
    with daemons.one.client() as client:
        yield client
        forget_peers(client)
        for each in client.control(m.ListInvitations()).invitations:
            client.control(m.RevokeInvitation(each.id, True))


@pytest.fixture
def two(daemons: TwoDaemons) -> Iterator[Client]:
    """A client of the bearer's daemon."""
    with daemons.two.client() as client:
        yield client
        forget_peers(client)


def forget_peers(client: Client) -> None:
    for peer in client.control(m.ListPeers()).peers:
        client.control(m.RemovePeer(peer.name))


def cli(daemon: Daemon, *arguments: str, code: int = 0, stdin: str = "") -> str:
    """Run a command; return both outputs."""
    done = daemon.cli(*arguments, input=stdin)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def invite(client: Client, *bindings: str, **options: Any) -> m.InvitationText:
    return client.control(m.CreateInvitation("alice", bindings or ("Echo",), **options))


def redeem(client: Client, ticket: str, name: str = "ally", identity: str = "bob") -> m.PeerReply:
    return client.control(m.AddPeer(ticket, name, identity=identity), timeout=60)


def refusal(client: Client, ticket: str, name: str = "ally", identity: str = "bob") -> str:
    """Redeem an invitation that is refused; return the reason."""
    with pytest.raises(InvitationRefused) as refused:
        redeem(client, ticket, name, identity)
    return refused.value.reason


def call(client: Client, peer: str, instance: str = "default", identity: str = "bob") -> type[P2PError] | None:
    """Call Echo. Return the error, or None after a reply."""
    try:
        client.call(identity, peer, "Echo", instance, {"message": "hi"}, timeout=30)
    except P2PError as error:
        return type(error)
    return None


def audit(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the events of the audit log."""
    lines = daemon.home.audit_log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be being written


def event(daemon: Daemon, name: str, **fields: object) -> dict[str, Any]:
    """Wait for an event with these fields in the audit log."""

    def find() -> dict[str, Any] | None:
        return next((each for each in audit(daemon) if each["event"] == name and fields.items() <= each.items()), None)

    found = eventually(find, f"{name} {fields} in the audit log")
    assert found is not None
    return found


def test_from_the_invitation_to_the_end_of_its_permission(daemons: TwoDaemons, one: Client, two: Client) -> None:
    said = cli(daemons.one, "invite", "alice", "--for", "Echo/work", "--uses", "1", "--days", "7")
    ticket = said.splitlines()[0]
    assert ticket.startswith("fastn1")
    assert "lets one bearer use Echo/work of alice" in said
    (made,) = json.loads(cli(daemons.one, "invite", "list", "--json"))
    assert (made["state"], made["uses"], made["bearers"], made["bindings"]) == ("open", 1, [], ["Echo/work"])
    secret_at_rest = [path for path in daemons.one.home.path.rglob("*") if path.is_file() and _has(path, ticket)]
    assert secret_at_rest == [], "only a hash of the secret is kept"
    with pytest.raises(InvitationNotRedeemed):
        two.call("bob", ticket, "Echo", "work", {"message": "hi"}, timeout=30)

    said = cli(daemons.two, "peer", "add", "-", "--name", "ally", stdin=ticket)
    assert daemons.alice in said
    assert "It lets you use: Echo/work." in said
    assert call(two, "ally", "work") is None
    assert call(two, ticket, "work") is None, "a ticket that was redeemed names its identity"
    assert call(two, "ally", "default") is Denied, "nothing else, although that is for peers"
    (peer,) = one.control(m.ListPeers()).peers
    assert (peer.name, peer.id52, peer.invited) == ("bob", daemons.bob, True)
    table = cli(daemons.one, "access", "alice")
    row = next(line for line in table.splitlines() if line.startswith("alice/Echo/work") and "bob" in line)
    assert row.split() == ["alice/Echo/work", "bob", f"invitation:{made['id']}"]
    assert not any(line.startswith("alice/Echo/default") and "bob" in line for line in table.splitlines())
    assert "peers (0)" in table, "a bearer does not count among the peers"
    assert "1/1" in cli(daemons.one, "invite", "list", "alice")
    assert one.control(m.ListPendingPeers()).knocks == []

    cli(daemons.one, "invite", "revoke", made["id"], "--access")
    assert call(two, "ally", "work") is Denied
    (made,) = json.loads(cli(daemons.one, "invite", "list", "--json"))
    assert (made["state"], made["bearers"][0]["removed"]) == ("revoked", True)
    assert refusal(two, ticket) == "revoked"

    event(daemons.one, "invitation-signed", identity="alice", uses=1)
    event(daemons.one, "command", command="CreateInvitation", id=made["id"], outcome="done")
    event(daemons.one, "invitation-used", invitation=made["id"], peer=daemons.bob, uses_left=0)
    event(daemons.one, "admitted", peer=daemons.bob, by=f"invitation:{made['id']}")
    event(daemons.one, "command", command="RevokeInvitation", id=made["id"], access=True)
    event(daemons.two, "command", command="AddPeer", peer=daemons.alice, let_in_to=["Echo/work"])
    for daemon in (daemons.one, daemons.two):
        assert not _has(daemon.home.path / "vault" / "audit.jsonl", ticket), "no part of the secret is recorded"


def _has(path: Path, ticket: str) -> bool:
    """Return whether a file has the last part of a ticket, with the secret, or a longer part of it."""
    content = path.read_bytes()
    secret = _secret(ticket)
    return ticket[-160:].encode() in content or secret in content or secret.hex().encode() in content


def _secret(ticket: str) -> bytes:
    from fastn_p2p_actors.credentials.invitation import read_invitation

    return read_invitation(Ticket(ticket).record_bytes).secret


def test_used_up_invitation_refuses_the_next_bearer_and_lists_it(daemons: TwoDaemons, one: Client, two: Client) -> None:
    eve = daemons.two.identity("eve", echo=False)
    ticket = invite(one).ticket
    try:
        with pytest.raises(IdentityAmbiguous):
            redeem(two, ticket, identity="")
        assert redeem(two, ticket).let_in_to == ("Echo/default",)
        assert redeem(two, ticket).let_in_to == ("Echo/default",), "the same bearer may repeat it"
        assert refusal(two, ticket, identity="eve") == "used-up"
        assert call(two, daemons.alice, identity="eve") is Denied
        assert eve in [each.id52 for each in one.control(m.ListPendingPeers()).knocks]
        said = cli(daemons.two, "peer", "add", ticket, "--name", "ally", "--as", "eve", code=5)
        assert "it was used as often as it may be. Ask its owner for a new one" in said
        assert "(by an invitation)" in cli(daemons.one, "peer", "pending")
        assert event(daemons.one, "stranger-refused", peer=eve)["binding"].startswith("alice")
        (listed,) = one.control(m.ListInvitations("alice")).invitations[:1]
        assert [each.name for each in listed.bearers] == ["bob"]
    finally:
        two.control(m.DeleteIdentity("eve"))


def test_two_bearers_at_once_share_one_use(daemons: TwoDaemons, one: Client, two: Client) -> None:
    names = ["eve", "mallory", "trent"]
    for name in names:
        daemons.two.identity(name, echo=False)
    ticket = invite(one).ticket
    gate = threading.Barrier(len(names))

    def try_as(name: str) -> str:
        with daemons.two.client() as client:
            gate.wait(60)
            try:
                redeem(client, ticket, "ally", name)
            except InvitationRefused as error:
                return error.reason
            return "let in"

    try:
        with ThreadPoolExecutor(len(names)) as pool:
            outcomes = sorted(pool.map(try_as, names))
        assert outcomes == ["let in", "used-up", "used-up"]
        (listed,) = one.control(m.ListInvitations()).invitations[:1]
        assert len(listed.bearers) == 1
    finally:
        for name in names:
            two.control(m.DeleteIdentity(name))


def test_refused_invitations_leave_nothing_behind(daemons: TwoDaemons, one: Client, two: Client) -> None:
    made = invite(one)
    one.control(m.RevokeInvitation(made.invitation.id[:6]))
    assert refusal(two, made.ticket) == "revoked"
    forged = Ticket.of_record(_forged(Ticket(made.ticket).record_bytes))
    with pytest.raises(BadSignature):
        redeem(two, str(forged))
    with pytest.raises(BindingNotFound):
        invite(one, "Chat")
    with pytest.raises(InvitationNotFound):
        one.control(m.RevokeInvitation("zzzzzzzz"))
    usable = invite(one).ticket
    two.control(m.AddPeer(daemons.bob[:-1] + daemons.bob[-1], "self"))
    with pytest.raises(PeerNameTaken):
        redeem(two, usable, "self")
    assert [each.name for each in two.control(m.ListPeers()).peers] == ["self"]
    assert one.control(m.ListPeers()).peers == []
    assert redeem(two, usable).let_in_to == ("Echo/default",), "a name that is taken has not used it up"


def _forged(blob: bytes) -> bytes:
    """Return the invitation with one more use in its signed body."""
    import msgspec

    body, signature = msgspec.msgpack.decode(blob)
    fields = msgspec.msgpack.decode(body)
    fields[4] += 1
    return msgspec.msgpack.encode([msgspec.msgpack.encode(fields), signature])


def test_bearer_is_removed_accepted_and_allowed_like_other_peers(daemons: TwoDaemons, one: Client, two: Client) -> None:
    ticket = invite(one).ticket
    redeem(two, ticket)
    one.control(m.SetProtocol("alice", "Trial", "default", ("bob",)))
    (trial,) = [each for each in one.control(m.GetAccess("alice")).bindings if each.protocol == "Trial"]
    assert trial.allow == [daemons.bob], "the owner means this peer, and not the name that it has chosen"
    one.control(m.SetProtocol("alice", "Trial", "default", ("peers",)))
    one.control(m.RemovePeer("bob"))
    assert call(two, "ally") is Denied
    assert refusal(two, ticket) == "revoked", "a peer that was removed does not come back by its old invitation"
    redeem(two, invite(one, "Echo/work", name="friend").ticket)
    assert [each.name for each in one.control(m.ListPeers()).peers] == ["friend"]
    assert call(two, "ally") is Denied
    cli(daemons.one, "peer", "accept", "friend")
    assert call(two, "ally") is None
    assert not one.control(m.ListPeers()).peers[0].invited


def test_invitation_survives_a_restart_with_its_count(daemons: TwoDaemons, one: Client, two: Client) -> None:
    ticket = invite(one, uses=2).ticket
    redeem(two, ticket)
    daemons.one.stop()
    daemons.one.start()
    eventually(lambda: call(two, "ally") is None, "the bearer is served again")
    (listed, *_) = one.control(m.ListInvitations()).invitations
    assert (listed.state, len(listed.bearers)) == ("open", 1)
    forget_peers(one)
    assert refusal(two, ticket) == "revoked"
