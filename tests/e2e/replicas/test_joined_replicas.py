"""A daemon that has joined an identity: what it serves, what it cannot do, and what happens when a daemon is gone."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_actors.credentials import read_record
from fastn_p2p_client.errors import EpochRetired, IdentityElsewhere, IdentityOffline, P2PError, ReplicaNotFound
from fastn_p2p_client.ipc.messages import (
    AddProtocol,
    CreateInvitation,
    DeleteIdentity,
    GetTicket,
    RemoveJoined,
    RemoveReplica,
    RevokeIdentity,
    RotateTransport,
    SetIdentityOnline,
)
from fastn_p2p_client.tickets import Ticket
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.joined_replicas import JoinedReplicas, join_replica, new_joined_replicas, replicas_of
from tests.support.replicas import freeze, kill_all, thaw

HELLO = {"message": "hello"}


@pytest.fixture(scope="module")
def joined() -> Iterator[JoinedReplicas]:
    with new_joined_replicas() as made:
        add_echo(made.replica)
        yield made


def add_echo(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.control(AddProtocol("alice", "Echo", "default", ("everyone",)))


def alice_at(daemon: Daemon) -> Any:
    return next(each for each in daemon.status().identities if each.name == "alice")


def calls_at(daemon: Daemon) -> int:
    return sum(binding.calls for binding in alice_at(daemon).bindings)


def call_alice(joined: JoinedReplicas) -> bool:
    """Call alice from the third daemon. Return whether she answered."""
    with joined.caller.client() as client:
        try:
            return bool(client.call("bob", "alice", "Echo", request=HELLO, timeout=5.0))
        except P2PError:
            return False


def endpoints_of(daemon: Daemon) -> set[str]:
    """Return the endpoints in alice's record at a daemon."""
    with daemon.client() as client:
        record = read_record(Ticket(client.control(GetTicket("alice")).ticket).record_bytes)
    return {each.delegation.endpoint.hex() for each in record.endpoints}


def both_endpoints(joined: JoinedReplicas) -> set[str]:
    return {joined.owner.status().endpoint, joined.replica.status().endpoint}


def seconds_left(daemon: Daemon) -> int:
    return int(alice_at(daemon).delegation_expires_ms)


def test_the_key_is_nowhere_in_the_joined_home(joined: JoinedReplicas) -> None:
    key = (joined.owner.home.vault / "identities" / "alice.key").read_bytes()
    header, _, seed = key.partition(b"\n")
    assert len(seed) >= 32
    assert json.loads(header)["name"] == "alice"
    for path in Path(joined.replica.home.path).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for form in (seed, seed[:32], seed[:32].hex().encode()):
                assert form not in content, path
    assert not (joined.replica.home.vault / "identities" / "alice.key").exists()


@pytest.mark.parametrize("which", ["owner", "replica"])
def test_one_record_lists_both_daemons_at_both(joined: JoinedReplicas, which: str) -> None:
    daemon = getattr(joined, which)
    eventually(lambda: endpoints_of(daemon) == both_endpoints(joined), "both are in the record")


def test_the_replica_calls_as_the_identity(joined: JoinedReplicas) -> None:
    with joined.replica.client() as client:
        bob = next(each.id52 for each in joined.caller.status().identities)
        assert client.call("alice", bob, "Echo", request=HELLO, timeout=30.0)


def test_status_shows_owner_replica_and_the_time_that_is_left(joined: JoinedReplicas) -> None:
    at_owner, at_replica = alice_at(joined.owner), alice_at(joined.replica)
    assert [(each.name, each.state, each.joined) for each in at_owner.replicas] == [("second", "online", False)]
    assert at_replica.owner
    assert [each.joined for each in at_replica.replicas] == [True]
    assert 23 * 3_600_000 < seconds_left(joined.replica) <= 24 * 3_600_000


@pytest.mark.parametrize(
    "request_at",
    [
        lambda client: client.control(DeleteIdentity("alice")),
        lambda client: client.control(RevokeIdentity("alice")),
        lambda client: client.control(RotateTransport()),
        lambda client: client.control(CreateInvitation("alice", ("Echo",))),
        lambda client: client.control(RemoveReplica("alice", "second")),
    ],
    ids=["delete", "revoke", "rotate", "invite", "remove a replica"],
)
def test_what_needs_the_key_is_refused_at_the_replica(joined: JoinedReplicas, request_at: Callable[[Any], Any]) -> None:
    with joined.replica.client() as client, pytest.raises(IdentityElsewhere) as caught:
        request_at(client)
    assert caught.value.identity == "alice"
    assert "Do it there" in str(caught.value)


def test_a_backup_of_the_replica_names_the_owner(joined: JoinedReplicas) -> None:
    refused = joined.replica.cli("backup", "create", str(joined.replica.home.path / "b"), "--identity", "alice")
    assert refused.returncode == 5, refused
    assert "is at its owner's daemon" in refused.stderr


def test_the_audit_log_of_the_owner_has_the_enrolment(joined: JoinedReplicas) -> None:
    events = [json.loads(line) for line in joined.owner.home.audit_log.read_text().splitlines()]
    endpoint = joined.replica.status().endpoint
    for event in ("replica-added", "replica-signed"):
        assert any(each.get("event") == event and each.get("endpoint") == endpoint for each in events), event


def test_the_identity_may_go_offline_at_the_replica(joined: JoinedReplicas) -> None:
    with joined.replica.client() as client:
        client.control(SetIdentityOnline("alice", False))
        eventually(lambda: [each.state for each in replicas_of(joined.owner)] == ["offline"], "the owner knows it")
        assert endpoints_of(joined.owner) == {joined.owner.status().endpoint}
        client.control(SetIdentityOnline("alice", True))
    eventually(lambda: endpoints_of(joined.owner) == both_endpoints(joined), "it is back in the record")


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("which", ["owner", "replica"])
def test_callers_move_when_a_daemon_is_gone(joined: JoinedReplicas, which: str, how: str) -> None:
    gone: Daemon = getattr(joined, which)
    other = joined.replica if which == "owner" else joined.owner
    eventually(lambda: call_alice(joined), "alice answers")
    before = calls_at(other)
    (kill_all if how == "killed" else freeze)(gone)
    try:
        eventually(lambda: call_alice(joined) and calls_at(other) > before, "the other daemon answers")
    finally:
        if how == "killed":
            gone.start()
        else:
            thaw(gone)
    eventually(lambda: alice_at(gone).online, "it serves again")
    eventually(lambda: [each.state for each in replicas_of(joined.owner)] == ["online"], "they talk again")


def test_the_replica_restarts_and_serves_while_its_owner_is_away(joined: JoinedReplicas) -> None:
    joined.owner.stop()
    try:
        joined.replica.stop()
        joined.replica.start()
        eventually(lambda: alice_at(joined.replica).online, "alice is online with her last delegation")
        eventually(lambda: call_alice(joined), "the replica answers")
        eventually(
            lambda: any("does not answer" in each for each in joined.replica.status().warnings), "status says it"
        )
    finally:
        joined.owner.start()
    eventually(lambda: not joined.replica.status().warnings, "the owner answers again")


def test_a_replica_whose_delegation_has_ended_comes_back_with_its_owner(joined: JoinedReplicas) -> None:
    joined.owner.stop()
    joined.replica.stop()
    path = joined.replica.home.peers / ".joined.json"
    (saved,) = json.loads(path.read_bytes())
    path.write_text(json.dumps([{**saved, "delegation": "", "since": 0, "until": 0}]))
    try:
        joined.replica.start()
        eventually(lambda: any("is not served here" in each for each in joined.replica.status().warnings), "it says so")
        assert not alice_at(joined.replica).online
    finally:
        joined.owner.start()
    eventually(lambda: alice_at(joined.replica).online, "it is online again by itself")
    eventually(lambda: [each.state for each in replicas_of(joined.owner)] == ["online"], "the owner knows it")


@pytest.mark.parametrize("which", ["owner", "replica"])
def test_the_daemons_talk_again_after_a_restart_of_the_network_process(joined: JoinedReplicas, which: str) -> None:
    daemon: Daemon = getattr(joined, which)
    daemon.wait_actor("network", daemon.kill_actor("network"))
    eventually(lambda: alice_at(daemon).online, "alice is online again")
    eventually(lambda: endpoints_of(joined.replica) == both_endpoints(joined), "both are in the record")


def test_a_replica_follows_its_owner_to_another_transport_key(joined: JoinedReplicas) -> None:
    before = joined.owner.status().endpoint
    with joined.owner.client() as client:
        client.control(RotateTransport())
    eventually(lambda: joined.owner.status().endpoint not in ("", before), "the owner has another endpoint")
    eventually(lambda: endpoints_of(joined.replica) == both_endpoints(joined), "the replica has the new record")


def test_a_daemon_is_no_replica_of_itself(joined: JoinedReplicas) -> None:
    with joined.owner.client() as client, pytest.raises(ReplicaNotFound):
        client.control(RemoveReplica("alice", "third"))
    with pytest.raises(P2PError, match="already exists"):
        join_replica(joined.owner, joined.owner)


@pytest.mark.parametrize("now", [False, True])
def test_a_removed_replica_serves_no_more_and_may_join_again(joined: JoinedReplicas, now: bool) -> None:
    endpoint = joined.replica.status().endpoint
    eventually(lambda: call_alice(joined), "alice answers")
    with joined.owner.client() as client:
        (removed,) = client.control(RemoveReplica("alice", endpoint, now)).replicas[-1:]
    assert removed.state == "removed"
    assert endpoint not in endpoints_of(joined.owner)
    eventually(lambda: not alice_at(joined.replica).online, "the replica has ended")
    assert any("is no replica any more" in each for each in joined.replica.status().warnings)
    with joined.replica.client() as client:
        with pytest.raises(IdentityOffline):
            client.call("alice", joined.alice, "Echo", request=HELLO, timeout=5.0)
        client.control(RemoveJoined("alice"))
    assert not (joined.replica.home.identities / "alice").exists()
    eventually(lambda: call_alice(joined), "the owner answers")
    join_by_commands(joined)
    add_echo(joined.replica)
    eventually(lambda: endpoint in endpoints_of(joined.owner), "it is back in the record")


def test_a_stolen_replica_is_refused_at_once(joined: JoinedReplicas) -> None:
    """It has a valid delegation, and does not ask its owner any more."""
    bob = joined.caller.status().identities[0].id52
    endpoint = joined.replica.status().endpoint
    joined.replica.stop()
    path = joined.replica.home.peers / ".joined.json"
    (saved,) = json.loads(path.read_bytes())
    path.write_text(json.dumps([{**saved, "lineage": base64.b64encode(bytes(16)).decode()}]))
    with joined.owner.client() as client:
        client.control(RemoveReplica("alice", endpoint, now=True))
    eventually(lambda: call_alice(joined), "bob talks to the owner, who tells of it")
    joined.replica.start()
    eventually(lambda: alice_at(joined.replica).online, "it believes that it is alice")
    with joined.replica.client() as client, pytest.raises(EpochRetired):
        client.call("alice", bob, "Echo", request=HELLO, timeout=30.0)
    before = calls_at(joined.replica)
    assert all(call_alice(joined) for _ in range(3))
    assert calls_at(joined.replica) == before


def join_by_commands(joined: JoinedReplicas) -> None:
    """Join as owners do, by the two commands."""
    command = [*CLI, "replica", "invite", "alice", "--name", "second", "--json"]
    with subprocess.Popen(command, env=joined.owner.env, stdout=subprocess.PIPE, text=True) as invite:
        assert invite.stdout is not None
        words = json.loads(invite.stdout.readline())["words"].split()
        done = joined.replica.cli("replica", "join", *words, "--json")
        assert done.returncode == 0, done.stderr
        added, record = json.loads(invite.stdout.readline()), json.loads(done.stdout)
    assert added["fingerprint"] == record["fingerprint"]
    assert (record["identity"], record["id52"], record["problem"]) == ("alice", joined.alice, "")
    listed = joined.owner.cli("replica", "list", "alice").stdout
    assert any(line.split("\t")[:3] == ["alice", added["replica"], "replica"] for line in listed.splitlines())
