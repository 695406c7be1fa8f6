"""A revoked identity goes offline for good; its peers refuse it, say so, and accept its successor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastn_p2p_actors.vault.access_policy import GATEWAY
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.messages import RevokeKey
from fastn_p2p_actors.vault.vault import Vault
from fastn_p2p_client.errors import IdentityRevoked, P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.sync import Client
from tests.support.daemons import DEADLINE, Daemon, eventually
from tests.support.directories import RelayProcess, running_directory
from tests.support.processes import send_signal
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding


@dataclass
class Daemons:
    """alice and her successor are at ``one``, bob at ``two``, carol at ``three``. They share only a directory."""

    one: Daemon
    two: Daemon
    three: Daemon
    alice: str
    successor: str
    bob: str
    carol: str
    directory: RelayProcess


@pytest.fixture(scope="module")
def daemons() -> Iterator[Daemons]:
    with (
        tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name,
        running_directory(Path(name) / "directory.sqlite") as directory,
    ):
        folder = Path(name)
        env = {**install_protocols(folder / "packages"), "FASTN_DIRECTORIES": directory.url}
        made = [Daemon(folder / each, folder / f"hosts-{each}", **env) for each in ("one", "two", "three")]
        one, two, three = made
        try:
            for daemon in made:
                daemon.launch()
            for daemon in made:
                assert daemon.wait_ready(), daemon.report()
            alice, successor = one.identity("alice"), one.identity("alice2")
            one.identity("alma", echo=False)
            add_binding(one, "alice", "Trial")
            bob, carol = two.identity("bob"), three.identity("carol")
            yield Daemons(one, two, three, alice, successor, bob, carol, directory)
        finally:
            for daemon in made:
                daemon.clean_up()


def cli(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    """Run a command; return both outputs."""
    done = daemon.cli(*arguments)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def call(daemon: Daemon, identity: str, peer: str, instance: str = "default") -> P2PError | None:
    """Call Echo. Return the error, or None after a reply."""
    with daemon.client() as client:
        try:
            client.call(identity, peer, "Echo", instance, {"message": "hi"}, timeout=30)
        except P2PError as error:
            return error
    return None


def ticket(daemon: Daemon, identity: str) -> str:
    with daemon.client() as client:
        return client.control(m.GetTicket(identity)).ticket


def knows(daemon: Daemon, name: str) -> bool:
    """Return whether a daemon knows that a peer is revoked."""
    return any(each.name == name and each.revoked for each in daemon.status().peers)


def test_revocation_from_the_first_call_to_the_successor(daemons: Daemons) -> None:
    with daemons.two.client() as two, daemons.three.client() as three:
        two.control(m.AddPeer(ticket(daemons.one, "alice"), "ally"))
        two.control(m.CreateGroup("friends"))
        two.control(m.ChangeGroup("friends", ("ally",)))
        add_binding(daemons.two, "bob", "Echo", "ally", "ally")
        add_binding(daemons.two, "bob", "Echo", "friends", "group:friends")
        add_binding(daemons.two, "bob", "Echo", "exact", daemons.alice, daemons.carol)
        two.control(m.AddPeer(ticket(daemons.three, "carol"), "caro"))
        three.control(m.AddPeer(ticket(daemons.one, "alice"), "ally"))
        three.control(m.AddPeer(ticket(daemons.two, "bob"), "bobby"))
        assert call(daemons.three, "carol", "ally") is None
        assert call(daemons.one, "alice", daemons.bob, "ally") is None
        assert call(daemons.one, "alice", daemons.bob, "friends") is None
        daemons.three.stop()
        session = two.connect("bob", "ally", "Trial", initial={"do": "hold"})

        said = cli(daemons.one, "identity", "revoke", "alice", "--successor", "alice2", "--yes")
        assert f"Revoked alice, with the successor {daemons.successor}" in said
        with suppress(P2PError):
            while session.read(1):  # until the session has ended
                pass
        eventually(lambda: knows(daemons.two, "ally"), "bob's daemon has heard of it")

        peers_see_it(daemons, two)
        owner_sees_it(daemons)
        directory_has_it(daemons)
        later_neighbour_hears_of_it(daemons)
        successor_is_accepted(daemons, two)


def peers_see_it(daemons: Daemons, two: Client) -> None:
    with pytest.raises(IdentityRevoked) as refused:
        two.call("bob", "ally", "Echo", "default", {"message": "hi"})
    assert (refused.value.identity, refused.value.successor) == ("ally", daemons.successor)
    assert refused.value.revoked[:2] == "20"
    assert "fastn-p2p peer accept-successor ally" in str(refused.value)
    with pytest.raises(IdentityRevoked):
        two.wait_until_online("bob", "ally", timeout=30)
    with pytest.raises(IdentityRevoked):
        two.control(m.PingPeer("bob", "ally", 5000))
    shown = daemons.two.shown_status() + cli(daemons.two, "peer", "list")
    assert shown.count("fastn-p2p peer accept-successor ally") == 2
    assert json.loads(cli(daemons.two, "peer", "list", "--json"))[0]["successor"] == daemons.successor
    assert "it was revoked" in cli(daemons.two, "access", "--peer", "ally")


def owner_sees_it(daemons: Daemons) -> None:
    assert "revoked 20" in cli(daemons.one, "identity", "list")
    assert "revoked 20" in daemons.one.shown_status()
    assert "alice was revoked on 20" in cli(daemons.one, "identity", "online", "alice", code=5)
    with daemons.one.client() as one:
        for command in (
            m.GetTicket("alice"),
            m.AddProtocol("alice", "Echo", "more"),
            m.SetListed("alice", False),
            m.RequestGrant("alice", "Echo", "more"),
            m.RevokeIdentity("alice", daemons.bob),
        ):
            with pytest.raises(IdentityRevoked, match="alice was revoked on 20"):
                one.control(command)
        revoked = one.control(m.RevokeIdentity("alice")).identity
        assert (revoked.successor, revoked.online) == (daemons.successor, False), "the request may be repeated"
        assert not one.control(m.SetIdentityOnline("alice", False)).identity.online
    error = call(daemons.one, "alice", daemons.bob)
    assert isinstance(error, IdentityRevoked)
    assert error.identity == "alice"


def directory_has_it(daemons: Daemons) -> None:
    """A daemon that has never heard of alice is told by the directory."""
    daemons.three.start()
    with daemons.three.client() as three:
        three.control(m.RemovePeer("ally"))
    error = call(daemons.three, "carol", daemons.alice)
    assert isinstance(error, IdentityRevoked), error


def later_neighbour_hears_of_it(daemons: Daemons) -> None:
    """A daemon that has forgotten the revocation hears of it from a neighbour; alice's daemon need not run."""
    daemons.three.stop()
    (daemons.three.home.peers / ".revoked.json").unlink()
    daemons.one.stop()
    shutil.copy(daemons.two.home.peers / "ally.json", daemons.three.home.peers / "ally.json")
    revoke_in_the_vault_alone(daemons.one, "alma")
    daemons.three.start()
    assert call(daemons.three, "carol", "bobby") is None
    eventually(lambda: knows(daemons.three, "ally"), "carol's daemon has heard of it")
    daemons.one.start()
    eventually(lambda: "alma" in revoked_on_disk(daemons.one), "the interrupted revocation is finished")
    with daemons.one.client() as one, pytest.raises(IdentityRevoked):
        one.control(m.SetIdentityOnline("alma", True))
    assert not next(each for each in daemons.one.status().identities if each.name == "alma").online


def revoke_in_the_vault_alone(daemon: Daemon, name: str) -> None:
    """Leave a stopped daemon as it is when it is killed after the vault has committed a revocation."""
    memory = LockedMemory()
    try:
        store = KeyStore(daemon.home.vault, memory, time.time)
        store.open()
        Vault(store, time.time).answer(GATEWAY, RevokeKey(name))
    finally:
        memory.wipe()


def revoked_on_disk(daemon: Daemon) -> set[str]:
    found = [json.loads(path.read_bytes()) for path in daemon.home.identities.glob("*/identity.json")]
    return {each["name"] for each in found if each["revoked"]}


def successor_is_accepted(daemons: Daemons, two: Client) -> None:
    daemons.two.stop()
    daemons.two.start()
    assert knows(daemons.two, "ally"), "a restart forgets nothing"
    assert daemons.successor in cli(daemons.two, "peer", "accept-successor", "ally")
    assert call(daemons.two, "bob", "ally") is None
    assert call(daemons.one, "alice2", daemons.bob, "ally") is None
    assert call(daemons.one, "alice2", daemons.bob, "friends") is None
    assert call(daemons.one, "alice2", daemons.bob, "exact") is None, "entries by ID52 follow"
    lists = {each.instance: each.access for each in daemons.two.status().identities[0].bindings}
    assert lists["exact"] == [daemons.successor, daemons.carol]
    assert not knows(daemons.two, "ally")
    with pytest.raises(P2PError, match="not revoked"):
        two.control(m.AcceptSuccessor("ally"))
    with pytest.raises(IdentityRevoked):
        two.control(m.AddPeer(daemons.alice, "old"))


def test_killed_after_the_commit_the_next_start_finishes_a_revocation(daemons: Daemons) -> None:
    """The network process is stopped, so the command waits between its steps."""
    one = daemons.one
    one.identity("anna", echo=False)
    network = one.pid("network")
    send_signal(network, signal.SIGSTOP)

    def revoke() -> None:
        with one.client() as client, pytest.raises(P2PError):
            client.control(m.RevokeIdentity("anna"), timeout=DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(revoke)
        eventually((one.home.vault / "identities" / "anna.revoked").exists, "the vault has committed it")
        assert "anna" not in revoked_on_disk(one)
        one.kill()
        with suppress(ProcessLookupError):
            os.kill(network, signal.SIGCONT)
        asked.result()
    one.start()
    eventually(lambda: "anna" in revoked_on_disk(one), "the revocation is finished")
    with one.client() as client, pytest.raises(IdentityRevoked):
        client.control(m.SetIdentityOnline("anna", True))
