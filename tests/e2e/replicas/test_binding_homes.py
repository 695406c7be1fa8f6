"""A protocol that keeps state, at two daemons of an identity: only its home serves it, wherever that has moved."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fastn_p2p_client.errors import HomeAway, IdentityElsewhere, P2PError
from fastn_p2p_client.ipc.messages import AddProtocol, PromoteReplica
from tests.support.daemons import Daemon, eventually
from tests.support.joined_replicas import JoinedReplicas, new_joined_replicas, replicas_of
from tests.support.replicas import freeze, kill_all, thaw

BINDING = "Ledger/default"


@pytest.fixture(scope="module")
def joined() -> Iterator[JoinedReplicas]:
    """The owner has added the protocol first."""
    with new_joined_replicas(Ledger="tests.support.ledger_protocol:Ledger") as made:
        for daemon in (made.owner, made.replica):
            with daemon.client() as client:
                client.control(AddProtocol("alice", "Ledger", "default"))
        eventually(lambda: is_standby(made.replica), "the replica knows the home")
        yield made


def state_at(daemon: Daemon) -> str:
    """Return the state of alice's binding at a daemon; empty if she is not online."""
    alice = next(each for each in daemon.status().identities if each.name == "alice")
    return next((each.state for each in alice.bindings if each.protocol == "Ledger"), "") if alice.online else ""


def entries_at(daemon: Daemon) -> list[str]:
    """Return the entries that a daemon keeps."""
    file = daemon.home.identities / "alice" / "protocols" / "Ledger" / "default" / "entries"
    return file.read_text().splitlines() if file.exists() else []


def add(joined: JoinedReplicas, entry: str) -> None:
    """Have bob add an entry, as soon as the home answers."""

    def is_added() -> bool:
        with joined.caller.client() as client:
            try:
                client.call("bob", "alice", "Ledger", request=entry, timeout=2.0)
            except P2PError:
                return False
        return True

    eventually(is_added, f"{entry} is added")


def error_of_a_call(joined: JoinedReplicas) -> HomeAway | None:
    """Return the error of a call of bob's; None if it has another outcome."""
    with joined.caller.client() as client:
        try:
            client.call("bob", "alice", "Ledger", request="never", timeout=2.0)
        except HomeAway as error:
            return error
        except P2PError:
            pass
    return None


def promote(joined: JoinedReplicas, name: str = "") -> int:
    with joined.owner.client() as client:
        return client.control(PromoteReplica("alice", "Ledger", name=name)).home.term


def is_home(daemon: Daemon) -> bool:
    return state_at(daemon) == "serving"


def is_standby(daemon: Daemon) -> bool:
    """Return whether a daemon knows that another one is the home."""
    state = state_at(daemon)
    return state.startswith("standby: its home is ") and not state.endswith(" yet")


def test_only_the_home_serves_also_if_the_other_daemon_is_asked(joined: JoinedReplicas) -> None:
    before = entries_at(joined.replica)
    add(joined, "first")
    freeze(joined.owner)  # so that the caller connects to the replica, and keeps to it
    try:
        error = eventually(lambda: error_of_a_call(joined), "the replica refuses")
    finally:
        thaw(joined.owner)
    assert error is not None
    assert (error.endpoint, error.protocol) == (joined.owner.status().endpoint, "Ledger")
    assert (error.retryable, error.term > 0, error.seconds >= 0) == (True, True, True)
    add(joined, "second")
    assert "second" in entries_at(joined.owner)
    assert entries_at(joined.replica) == before


def test_streams_and_programs_beside_the_replica_reach_the_home_and_keep_their_name(joined: JoinedReplicas) -> None:
    add(joined, "shared")
    carol = joined.replica.identity("carol", echo=False)
    with joined.replica.client() as client:
        eventually(lambda: called(client, "carol", joined.alice), "the home answers")
        assert called(client, "carol", joined.alice)[0] == carol
        kept = "\n".join(entries_at(joined.owner)).encode()
        with client.connect("carol", joined.alice, "Ledger", initial="", timeout=30.0) as session:
            assert session.read_exactly(len(kept)) == kept


def called(client: object, identity: str, peer: str) -> list[str]:
    try:
        found: list[str] = client.call(identity, peer, "Ledger", request="", timeout=2.0)  # type: ignore[attr-defined]
    except P2PError:
        return []
    return found


def test_the_identity_itself_reads_what_is_kept_beside_it(joined: JoinedReplicas) -> None:
    with joined.replica.client() as client:
        kept = client.call("alice", joined.alice, "Ledger", request="", timeout=30.0)
    assert kept == [joined.alice, *entries_at(joined.replica)]


def test_a_call_without_its_home_ends_with_a_type_and_nothing_is_kept(joined: JoinedReplicas) -> None:
    eventually(lambda: is_home(joined.owner), "the owner is the home")
    before = entries_at(joined.replica)
    kill_all(joined.owner)
    try:
        error = eventually(lambda: error_of_a_call(joined), "the replica refuses")
        assert "heard of" in str(error)
        assert entries_at(joined.replica) == before
    finally:
        joined.owner.start()
    add(joined, "after the restart")
    assert "after the restart" in entries_at(joined.owner)


def test_a_home_that_has_moved_serves_and_the_earlier_one_refuses(joined: JoinedReplicas) -> None:
    eventually(lambda: is_home(joined.owner), "the owner is the home")
    done = joined.owner.cli("replica", "promote", "alice", "--protocol", "Ledger", "--to", "second", "--json")
    assert done.returncode == 0, done.stderr
    moved = json.loads(done.stdout)
    assert (moved["daemon"], moved["protocol"], moved["instance"]) == ("second", "Ledger", "default")
    assert state_at(joined.owner) == "standby: its home is second"
    add(joined, "moved")
    assert entries_at(joined.replica)[-1] == "moved"
    assert "moved" not in entries_at(joined.owner)
    (listed,) = replicas_of(joined.owner)
    assert listed.homes == [BINDING]
    with joined.replica.client() as client, pytest.raises(IdentityElsewhere):
        client.control(PromoteReplica("alice", "Ledger"))
    assert promote(joined) > moved["term"]
    eventually(lambda: is_standby(joined.replica), "the replica obeys")
    assert f"alice/{BINDING}" in joined.owner.cli("replica", "list").stderr


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_home_that_comes_back_with_its_old_term_obeys(joined: JoinedReplicas, how: str) -> None:
    promote(joined, "second")
    eventually(lambda: is_home(joined.replica), "the replica is the home")
    before = entries_at(joined.replica)
    (kill_all if how == "killed" else freeze)(joined.replica)
    try:
        promote(joined)
        add(joined, f"{how} meanwhile")
    finally:
        if how == "killed":
            joined.replica.start()
        else:
            thaw(joined.replica)
    eventually(lambda: is_standby(joined.replica), "it obeys")
    eventually(lambda: [each.state for each in replicas_of(joined.owner)] == ["online"], "they talk again")
    add(joined, f"{how} afterwards")
    assert entries_at(joined.replica) == before
    assert {f"{how} meanwhile", f"{how} afterwards"} <= set(entries_at(joined.owner))
