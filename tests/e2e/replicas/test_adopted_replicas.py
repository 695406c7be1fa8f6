"""A backup of the owner's daemon is restored at another machine, which adopts the replicas."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fastn_p2p_actors.runtime.machine_name import machine_name
from fastn_p2p_client.errors import OwnerReplaced, P2PError
from fastn_p2p_client.ipc.messages import AddProtocol, AdoptReplicas, HomeInfo, PromoteReplica
from tests.support.daemons import Daemon, eventually
from tests.support.joined_replicas import JoinedReplicas, new_joined_replicas
from tests.support.replicas import kill_all
from tests.support.restored_owner import back_up, new_daemon_beside, remove_home, restore, states_at

HELLO = {"message": "hello"}


@pytest.fixture
def joined() -> Iterator[JoinedReplicas]:
    with new_joined_replicas(Ledger="tests.support.ledger_protocol:Ledger") as made:
        for daemon in (made.owner, made.replica):
            with daemon.client() as client:
                client.control(AddProtocol("alice", "Ledger", "default"))
        with made.replica.client() as client:
            client.control(AddProtocol("alice", "Echo", "default", ("everyone",)))
        eventually(lambda: homes_at(made.owner), "the owner's daemon is the home")
        yield made


def homes_at(daemon: Daemon) -> list[str]:
    """Return alice's bindings that keep state and are served at a daemon, because it is their home."""
    alice = next((each for each in daemon.status().identities if each.name == "alice"), None)
    bindings = [] if alice is None else alice.bindings
    return [each.protocol for each in bindings if each.protocol == "Ledger" and each.state == "serving"]


def has_replica(daemon: Daemon) -> bool:
    """Return whether the replica reports to a daemon."""
    return states_at(daemon) == {"second": "online"}


def is_warned(daemon: Daemon) -> bool:
    """Return whether the status of a daemon says that another one renews the replicas."""
    warning = "the replicas of alice belong to another daemon"
    return any(warning in each for each in daemon.status().warnings)


def promote(daemon: Daemon, name: str = "") -> HomeInfo:
    with daemon.client() as client:
        return client.control(PromoteReplica("alice", "Ledger", name=name)).home


def adopt(daemon: Daemon, *without: str) -> None:
    with daemon.client() as client:
        client.control(AdoptReplicas("alice", without))


def signed_at(daemon: Daemon) -> set[str]:
    """Return the endpoints of the replicas for which the vault of a daemon has signed, as its audit log says."""
    events = [json.loads(line) for line in daemon.home.audit_log.read_text().splitlines()]
    return {each["endpoint"] for each in events if each["event"] == "replica-signed"}


def add(joined: JoinedReplicas, entry: str) -> list[str]:
    """Have bob add an entry, as soon as the home answers, and return the entries there."""

    def added() -> list[str]:
        with joined.caller.client() as client:
            try:
                reply: list[str] = client.call("bob", joined.alice, "Ledger", request=entry, timeout=2.0)
            except P2PError:
                return []
        return reply

    return eventually(added, f"{entry} is added")[1:]


@contextmanager
def calls_all_along(joined: JoinedReplicas) -> Iterator[None]:
    """Have bob call alice all along, and check at the end that each call was answered."""
    ended, errors, answered = threading.Event(), list[str](), threading.Event()

    def call() -> None:
        with joined.caller.client() as client:
            while not ended.is_set():
                try:
                    client.call("bob", joined.alice, "Echo", request=HELLO, timeout=60.0, retry=True)
                    answered.set()
                except P2PError as error:
                    errors.append(error.code)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield
        answered.clear()
        eventually(answered.is_set, "calls are answered at the end")
    finally:
        ended.set()
        caller.join()
    assert set(errors) <= {"outcome-unknown"}, errors  # of calls that were in flight when the owner's daemon was killed


def test_a_restored_daemon_adopts_the_replicas_of_one_that_is_gone(joined: JoinedReplicas) -> None:
    add(joined, "before")
    backup = back_up(joined.owner)
    with new_daemon_beside(joined.owner, "fresh") as fresh, calls_all_along(joined):
        remove_home(joined.owner)
        shown = restore(fresh, backup)
        assert "alice has 1 replica: second." in shown
        assert "fastn-p2p replica adopt alice" in shown
        eventually(lambda: states_at(fresh) == {"second": "elsewhere"}, "they stay with the earlier daemon")
        with pytest.raises(OwnerReplaced):
            promote(fresh, "second")

        done = fresh.cli("replica", "adopt", "alice")
        assert done.returncode == 0, (done, fresh.report(), joined.replica.report())
        assert "second reports to this daemon" in done.stderr or "second was not reached yet" in done.stderr
        eventually(lambda: has_replica(fresh), "the replica reports to the new daemon")
        eventually(lambda: states_at(joined.replica) == {machine_name(): "online"}, "the replica has a new owner")
        eventually(lambda: joined.replica.status().endpoint in signed_at(fresh), "its vault has signed a delegation")
        alice = next(each for each in joined.replica.status().identities if each.name == "alice")
        assert alice.owner == machine_name()

        eventually(lambda: homes_at(fresh) and not homes_at(joined.replica), "the new daemon is the home")
        assert set(add(joined, "after")) == {"after"}
        promote(fresh, "second")
        eventually(lambda: homes_at(joined.replica) and not homes_at(fresh), "the replica is the home")
        assert set(add(joined, "moved")) == {"moved"}


def test_replicas_stay_with_an_owner_that_lives_until_another_one_adopts_them(joined: JoinedReplicas) -> None:
    backup = back_up(joined.owner)
    shown = json.loads(
        joined.owner.cli(
            "backup", "show", str(backup), "--json", "--passphrase-file", str(backup.parent / "passphrase")
        ).stdout
    )
    assert [each["name"] for each in shown["identities"][0]["replicas"]] == ["second"]
    term = promote(joined.owner, "second").term  # after the backup: nobody but the two daemons knows
    with new_daemon_beside(joined.owner, "fresh") as fresh:
        restore(fresh, backup)
        assert states_at(fresh) == {"second": "elsewhere"}
        eventually(lambda: has_replica(joined.owner), "the replica reports to the earlier daemon")
        assert not homes_at(fresh)
        eventually(lambda: is_warned(fresh), "its status says so")

        adopt(fresh)
        eventually(lambda: states_at(joined.owner) == {"second": "elsewhere"}, "the earlier owner's daemon is replaced")
        eventually(lambda: has_replica(fresh), "the replica reports to the new daemon")
        eventually(lambda: is_warned(joined.owner), "its status says so")
        eventually(lambda: homes_at(fresh) and not homes_at(joined.replica), "the home is that of the backup")
        assert promote(fresh, "second").term > term
        with pytest.raises(OwnerReplaced):
            promote(joined.owner)

        joined.owner.stop()
        joined.owner.start()
        eventually(lambda: states_at(joined.owner) == {"second": "elsewhere"}, "it stays replaced")
        eventually(lambda: has_replica(fresh), "the replica reports to the new daemon")

        adopt(joined.owner)  # the explicit way back
        eventually(lambda: states_at(fresh) == {"second": "elsewhere"}, "the restored daemon is replaced")
        eventually(lambda: has_replica(joined.owner), "the replica reports to the earlier daemon again")


def test_an_owner_that_comes_back_and_a_replica_that_comes_late_learn_of_the_adoption(joined: JoinedReplicas) -> None:
    backup = back_up(joined.owner)
    kill_all(joined.owner)
    joined.replica.stop()
    with new_daemon_beside(joined.caller, "fresh") as fresh:
        restore(fresh, backup)
        done = fresh.cli("replica", "adopt", "alice")
        assert "second was not reached yet" in done.stderr, done
        assert states_at(fresh) == {"second": "awaited"}
        joined.replica.start()
        eventually(lambda: has_replica(fresh), "the replica is adopted when it is reached")
        joined.owner.start()
        eventually(lambda: states_at(joined.owner) == {"second": "elsewhere"}, "the earlier daemon learns of it")
        eventually(lambda: has_replica(fresh), "the replica reports to the new daemon")


def test_a_replica_that_was_removed_since_the_backup_is_left_out(joined: JoinedReplicas) -> None:
    backup = back_up(joined.owner)
    kill_all(joined.owner)
    with new_daemon_beside(joined.caller, "fresh") as fresh:
        restore(fresh, backup)
        done = fresh.cli("replica", "adopt", "alice", "--without", "second")
        assert "second is no replica of alice any more" in done.stderr, done
        eventually(lambda: set(states_at(joined.replica).values()) == {"removed"}, "the replica is removed")
        refused = fresh.cli("replica", "adopt", "alice", "--without", "nobody")
        assert refused.returncode == 7, refused
        assert "has no replica 'nobody'" in refused.stderr


def test_an_identity_without_replicas_has_none_to_adopt(joined: JoinedReplicas) -> None:
    done = joined.caller.cli("replica", "adopt", "bob")
    assert done.returncode == 0, done
    assert "There are no replicas of bob" in done.stderr
