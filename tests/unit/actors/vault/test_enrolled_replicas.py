"""Delegations that the vault signs for other daemons: for those that the gateway has enrolled, and for no others."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.credentials import EpochTracker, verify_delegation
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.messages import (
    DeleteKey,
    EndReplica,
    EnrolledReplica,
    EnrolReplica,
    GetEndpoint,
    ListEnrolled,
    RevokeKey,
    SignReplica,
)
from fastn_p2p_actors.vault.replica_files import MAX_REPLICAS
from fastn_p2p_actors.vault.vault import DELEGATION_SECONDS
from fastn_p2p_client.errors import (
    EpochRetired,
    HomeUnusable,
    IdentityNotFound,
    IdentityRevoked,
    Overloaded,
    ReplicaNotFound,
    ReplicaRemoved,
)
from tests.support.vault_setup import VaultSetup

ENDPOINT = bytes(range(32))


def enrol(setup: VaultSetup, endpoint: bytes = ENDPOINT, name: str = "laptop") -> tuple[EnrolledReplica, ...]:
    found: tuple[EnrolledReplica, ...] = setup.request(GATEWAY, EnrolReplica("alice", endpoint, name)).replicas
    return found


def end(setup: VaultSetup, replica: str = "laptop", *, at_once: bool = False) -> None:
    setup.request(GATEWAY, EndReplica("alice", replica, at_once))


def sign(setup: VaultSetup, endpoint: bytes = ENDPOINT, retired: bytes = b"") -> bytes:
    blob: bytes = setup.request(NETWORK, SignReplica("alice", endpoint, retired)).blob
    return blob


def test_nothing_is_signed_for_an_endpoint_that_is_not_enrolled(setup: VaultSetup) -> None:
    with pytest.raises(ReplicaRemoved):
        sign(setup)
    enrol(setup)
    with pytest.raises(ReplicaRemoved):
        sign(setup, bytes(32))


def test_a_delegation_is_for_the_endpoint_and_for_a_day(setup: VaultSetup) -> None:
    (replica,) = enrol(setup)
    delegation = verify_delegation(sign(setup), now=setup.clock.now, endpoint=ENDPOINT)
    assert delegation.not_after - delegation.not_before == DELEGATION_SECONDS
    assert (delegation.lineage, delegation.epoch) == (replica.lineage, replica.epoch)


def test_an_enrolment_may_be_repeated(setup: VaultSetup) -> None:
    assert enrol(setup) == enrol(setup, name="other")


def test_a_name_is_used_once(setup: VaultSetup) -> None:
    enrol(setup)
    assert [each.name for each in enrol(setup, bytes(32))] == ["laptop", "laptop-2"]


def test_a_record_lists_so_many_replicas_and_no_more_are_enrolled(setup: VaultSetup) -> None:
    for number in range(MAX_REPLICAS):
        enrol(setup, bytes([number]) * 32)
    with pytest.raises(Overloaded):
        enrol(setup)


@pytest.mark.parametrize("name", ["laptop", ENDPOINT.hex()])
def test_nothing_is_signed_after_the_removal(setup: VaultSetup, name: str) -> None:
    enrol(setup)
    end(setup, name)
    with pytest.raises(ReplicaRemoved):
        sign(setup)
    with pytest.raises(ReplicaNotFound):
        end(setup, "desktop")


def test_a_removal_at_once_retires_the_last_delegation(setup: VaultSetup) -> None:
    (replica,) = enrol(setup)
    last = sign(setup)
    end(setup, at_once=True)
    with pytest.raises(ReplicaRemoved):
        sign(setup)
    own = setup.request(GATEWAY, GetEndpoint()).public
    epochs = EpochTracker()
    retiring = verify_delegation(sign(setup, retired=replica.lineage), now=setup.clock.now, endpoint=own, epochs=epochs)
    assert retiring.endpoint == own
    with pytest.raises(EpochRetired):
        verify_delegation(last, now=setup.clock.now, endpoint=ENDPOINT, epochs=epochs)


def test_a_daemon_that_is_enrolled_again_has_another_lineage(setup: VaultSetup) -> None:
    (first,) = enrol(setup)
    end(setup, at_once=True)
    second = enrol(setup)[-1]
    assert second.lineage != first.lineage
    verify_delegation(sign(setup), now=setup.clock.now, endpoint=ENDPOINT)


def test_each_enrolment_of_a_daemon_is_retired_by_itself(setup: VaultSetup) -> None:
    (first,) = enrol(setup)
    end(setup, at_once=True)
    second = enrol(setup)[-1]
    last = sign(setup)
    with pytest.raises(ReplicaRemoved):
        sign(setup, retired=second.lineage)  # it is enrolled
    end(setup, ENDPOINT.hex(), at_once=True)
    epochs = EpochTracker()
    for lineage in (first.lineage, second.lineage):
        verify_delegation(sign(setup, retired=lineage), now=setup.clock.now, epochs=epochs)
    with pytest.raises(EpochRetired):
        verify_delegation(last, now=setup.clock.now, endpoint=ENDPOINT, epochs=epochs)
    with pytest.raises(ReplicaRemoved):
        sign(setup, retired=bytes(16))


def test_a_removed_replica_is_listed_while_a_delegation_may_be_valid(setup: VaultSetup) -> None:
    enrol(setup)
    end(setup)
    assert [each.removed > 0 for each in setup.request(NETWORK, ListEnrolled("alice")).replicas] == [True]
    setup.clock.now += 3 * DELEGATION_SECONDS
    assert setup.request(NETWORK, ListEnrolled("alice")).replicas == ()


def test_a_revoked_identity_has_no_more_delegations(setup: VaultSetup) -> None:
    enrol(setup)
    setup.request(GATEWAY, RevokeKey("alice"))
    with pytest.raises(IdentityRevoked):
        sign(setup)
    with pytest.raises(IdentityRevoked):
        enrol(setup, bytes(32))


def test_an_identity_that_is_deleted_has_no_replicas(setup: VaultSetup) -> None:
    enrol(setup)
    setup.request(GATEWAY, DeleteKey("alice"))
    with pytest.raises(IdentityNotFound):
        enrol(setup)
    assert not list(setup.folder.rglob("*.replicas"))


def test_a_damaged_file_signs_nothing(setup: VaultSetup) -> None:
    enrol(setup)
    (path,) = setup.folder.rglob("*.replicas")
    path.write_bytes(b'{"format": 2}')
    with pytest.raises(HomeUnusable):
        sign(setup)
