"""Homes of bindings at the owner's vault: who may choose them, and which terms they get."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.messages import ClaimHome, EndReplica, EnrolReplica, HomeEntry, ListEnrolled, PromoteHome
from fastn_p2p_actors.vault.replica_files import MAX_HOMES
from fastn_p2p_client.errors import BindingNotFound, InvalidName, Overloaded, ReplicaNotFound, ReplicaRemoved
from tests.support.vault_setup import VaultSetup

LAPTOP, DESKTOP = bytes([1]) * 32, bytes([2]) * 32
OWNER = b""


def enrol(setup: VaultSetup) -> None:
    for endpoint, name in ((LAPTOP, "laptop"), (DESKTOP, "desktop")):
        setup.request(GATEWAY, EnrolReplica("alice", endpoint, name))


def claim(setup: VaultSetup, endpoint: bytes = OWNER, protocol: str = "Mail") -> HomeEntry:
    homes: tuple[HomeEntry, ...] = setup.request(NETWORK, ClaimHome("alice", protocol, "default", endpoint)).homes
    return next(each for each in homes if each.protocol == protocol)


def promote(setup: VaultSetup, replica: str = "") -> HomeEntry:
    homes: tuple[HomeEntry, ...] = setup.request(GATEWAY, PromoteHome("alice", "Mail", "default", replica)).homes
    return next(each for each in homes if each.protocol == "Mail")


def test_the_first_claim_stays(setup: VaultSetup) -> None:
    enrol(setup)
    first = claim(setup, LAPTOP)
    assert first.endpoint == LAPTOP
    assert claim(setup, DESKTOP) == claim(setup) == first
    assert setup.request(NETWORK, ListEnrolled("alice")).homes == (first,)


def test_only_an_enrolled_daemon_can_claim(setup: VaultSetup) -> None:
    enrol(setup)
    with pytest.raises(ReplicaRemoved):
        claim(setup, bytes(32))
    with pytest.raises(InvalidName):
        claim(setup, LAPTOP, protocol="../Mail")
    assert setup.request(NETWORK, ListEnrolled("alice")).homes == ()


def test_an_identity_without_replicas_has_no_homes(setup: VaultSetup) -> None:
    assert setup.request(NETWORK, ClaimHome("alice", "Mail", "default")).homes == ()
    assert setup.request(NETWORK, ListEnrolled("alice")).homes == ()


def test_so_many_bindings_have_a_home_and_no_more(setup: VaultSetup) -> None:
    enrol(setup)
    for number in range(MAX_HOMES):
        claim(setup, LAPTOP, f"P{number}")
    with pytest.raises(Overloaded):
        claim(setup)


def test_each_move_has_a_higher_term_whatever_the_clock_says(setup: VaultSetup) -> None:
    enrol(setup)
    terms = [claim(setup).term]
    for replica in ("laptop", LAPTOP.hex(), "desktop", ""):
        setup.clock.now -= 1000
        terms.append(promote(setup, replica).term)
    assert terms[1] == terms[2]  # it was the home already
    assert terms == sorted(terms)
    assert len(set(terms)) == 4


def test_a_list_that_is_begun_anew_has_higher_terms_than_the_lost_one(setup: VaultSetup) -> None:
    enrol(setup)
    claim(setup)
    lost = promote(setup, "laptop").term
    (setup.folder / "identities" / "alice.replicas").unlink()
    setup.clock.now += 60
    enrol(setup)
    assert claim(setup, DESKTOP).term > lost


def test_only_a_replica_of_the_list_is_promoted_and_only_for_a_known_binding(setup: VaultSetup) -> None:
    enrol(setup)
    with pytest.raises(BindingNotFound):
        promote(setup, "laptop")
    claim(setup)
    setup.request(GATEWAY, EndReplica("alice", "desktop"))
    for replica in ("phone", "desktop"):
        with pytest.raises(ReplicaNotFound):
            promote(setup, replica)


def test_a_removed_replica_is_no_home_and_the_next_one_has_a_higher_term(setup: VaultSetup) -> None:
    enrol(setup)
    claim(setup, DESKTOP, "Chat")
    before = claim(setup, LAPTOP)
    setup.request(GATEWAY, EndReplica("alice", "laptop"))
    assert [each.protocol for each in setup.request(NETWORK, ListEnrolled("alice")).homes] == ["Chat"]
    assert claim(setup).term > before.term
