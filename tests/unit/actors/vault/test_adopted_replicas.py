"""Replicas in backups: which vault renews them, and which statements count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.backup.archive import IDENTITIES, REPLICAS
from fastn_p2p_actors.credentials import verify_delegation
from fastn_p2p_actors.credentials.owner_statement import OwnerStatement, read_owner_statement
from fastn_p2p_actors.storage.enrolled_replicas import EnrolmentFile, decode_enrolments
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.messages import (
    AdoptEnrolled,
    ClaimHome,
    EndReplica,
    EnrolledReplicas,
    EnrolReplica,
    ListEnrolled,
    NoteOwner,
    PromoteHome,
    RotateTransportKey,
    SignReplica,
)
from fastn_p2p_actors.vault.signatures import sign_owner_statement
from fastn_p2p_actors.vault.vault import Vault
from fastn_p2p_client.errors import BadMessage, BadSignature, OwnerReplaced, ReplicaNotFound, ReplicaRemoved
from tests.support.signer import Signer
from tests.support.vault_setup import VaultClock

LAPTOP, SERVER = bytes([1]) * 32, bytes([2]) * 32


class Machine:
    """Vault of one machine."""

    def __init__(self, folder: Path, clock: VaultClock) -> None:
        self.memory, self.clock = LockedMemory(), clock
        self.store = KeyStore(folder, self.memory, clock)
        self.store.open()
        self.vault = Vault(self.store, clock)

    def request(self, role: str, request: Any) -> Any:
        return self.vault.answer(role, request)

    def backup(self) -> bytes:
        """Return the replicas of alice, as a backup of this moment has them."""
        key = self.store.find("alice")

        def first() -> bytes:
            transport, lineage = self.store.transport, self.store.lineage
            return sign_owner_statement(key, transport, lineage, 0, 0, self.clock(), "desktop")

        return self.store.replicas.export("alice", self.clock(), first)

    def restore(self, other: Machine, replicas: bytes) -> None:
        """Create alice's key as a backup of another machine has it."""
        content = decode_enrolments(replicas) if replicas else None
        self.store.adopt("alice", other.store.find("alice").pair, "", None, content)

    def adopt(self, *without: str) -> EnrolledReplicas:
        reply: EnrolledReplicas = self.request(GATEWAY, AdoptEnrolled("alice", "machine", without))
        return reply

    def note(self, statement: bytes) -> EnrolledReplicas:
        reply: EnrolledReplicas = self.request(NETWORK, NoteOwner("alice", statement))
        return reply

    def listed(self) -> EnrolledReplicas:
        reply: EnrolledReplicas = self.request(GATEWAY, ListEnrolled("alice"))
        return reply

    def statement(self) -> OwnerStatement:
        owner = self.listed().owner
        assert owner is not None
        return read_owner_statement(owner.statement, self.store.find("alice").pair.public)

    def may_sign(self, endpoint: bytes = LAPTOP) -> bool:
        try:
            blob = self.request(NETWORK, SignReplica("alice", endpoint)).blob
        except OwnerReplaced:
            return False
        verify_delegation(blob, now=self.clock(), endpoint=endpoint)
        return True


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine, Machine]]:
    """alice and her replicas are at the first one; the others are empty."""
    clock = VaultClock()
    made = Machine(tmp_path / "one", clock), Machine(tmp_path / "two", clock), Machine(tmp_path / "three", clock)
    made[0].store.create("alice")
    made[0].request(GATEWAY, EnrolReplica("alice", LAPTOP, "laptop"))
    made[0].request(GATEWAY, EnrolReplica("alice", SERVER, "server"))
    made[0].request(NETWORK, ClaimHome("alice", "Mail", "default", LAPTOP))
    made[0].request(NETWORK, ClaimHome("alice", "Chat", "default"))
    yield made
    for each in made:
        each.memory.wipe()


Machines = tuple[Machine, Machine, Machine]


def test_a_restored_vault_knows_the_replicas_and_signs_nothing_for_them(machines: Machines) -> None:
    first, second, _ = machines
    second.restore(first, first.backup())
    assert second.listed().replicas == first.listed().replicas
    assert second.listed().homes == first.listed().homes
    assert second.statement().generation == 0
    assert first.may_sign()
    requests: list[tuple[str, Any]] = [
        (NETWORK, SignReplica("alice", LAPTOP)),
        (NETWORK, ClaimHome("alice", "Ledger", "default")),
        (GATEWAY, EnrolReplica("alice", bytes(32), "new")),
        (GATEWAY, EndReplica("alice", "laptop")),
        (GATEWAY, PromoteHome("alice", "Mail", "default")),
    ]
    for role, request in requests:
        with pytest.raises(OwnerReplaced) as caught:
            second.request(role, request)
        assert (caught.value.identity, caught.value.owner) == ("alice", "desktop")


def test_a_vault_that_adopts_signs_and_the_earlier_one_stops_when_it_hears_of_it(machines: Machines) -> None:
    first, second, _ = machines
    second.restore(first, first.backup())
    adopted = second.adopt()
    assert adopted.owner is not None
    assert adopted.owner.is_here
    assert second.may_sign()
    assert first.may_sign()
    noted = first.note(adopted.owner.statement).owner
    assert noted is not None
    assert not noted.is_here
    assert not first.may_sign()
    before = second.listed()
    assert second.adopt() == before  # may be repeated
    first.adopt()
    assert first.may_sign()
    assert first.statement().rank > second.statement().rank


def test_homes_stay_where_they_are_with_terms_above_all_that_the_earlier_vault_chose(machines: Machines) -> None:
    first, second, _ = machines
    second.restore(first, first.backup())
    later = first.request(GATEWAY, PromoteHome("alice", "Mail", "default", "server"))
    highest = max(each.term for each in later.homes)
    second.clock.now -= 60  # the clock of the restored daemon is slow
    homes = {each.protocol: each for each in second.adopt().homes}
    assert (homes["Mail"].endpoint, homes["Chat"].endpoint) == (LAPTOP, b"")
    assert min(each.term for each in homes.values()) > highest
    assert len({each.term for each in homes.values()}) == 2
    moved = second.request(GATEWAY, PromoteHome("alice", "Mail", "default", "server"))
    assert max(each.term for each in moved.homes) > max(each.term for each in homes.values())
    owner = second.listed().owner
    assert owner is not None
    first.note(owner.statement)
    assert min(each.term for each in first.adopt().homes) > max(each.term for each in moved.homes)


def test_an_earlier_statement_never_replaces_a_later_one(machines: Machines) -> None:
    first, second, third = machines
    backup = first.backup()
    second.restore(first, backup)
    third.restore(first, backup)
    earlier = second.adopt().owner
    third.clock.now += 1
    later = third.adopt().owner
    assert earlier is not None
    assert later is not None
    for statements in ((earlier, later, earlier), (later, earlier, later)):
        for each in statements:
            first.note(each.statement)
    assert first.statement() == third.statement()
    assert third.note(earlier.statement).owner == later
    assert second.note(later.statement).owner is not None
    assert not second.may_sign()


def test_of_two_adoptions_at_once_everyone_follows_the_same(machines: Machines) -> None:
    first, second, third = machines
    backup = first.backup()
    second.restore(first, backup)
    third.restore(first, backup)
    owners = second.adopt().owner, third.adopt().owner
    blobs = [each.statement for each in owners if each is not None]
    assert second.statement().generation == third.statement().generation
    for machine, order in ((first, blobs), (second, blobs), (third, blobs[::-1])):
        for blob in order:
            machine.note(blob)
    winner = max((second, third), key=lambda each: each.store.lineage)
    assert [each.may_sign() for each in machines] == [each is winner for each in machines]


def test_a_clock_that_is_wrong_does_not_keep_the_replicas_for_ever(machines: Machines) -> None:
    first, second, _ = machines
    second.restore(first, first.backup())
    now, second.clock.now = second.clock.now, second.clock.now + 50 * 365 * 86_400
    ahead = second.adopt().owner
    second.clock.now = now
    assert ahead is not None
    first.note(ahead.statement)
    assert not first.may_sign()
    first.adopt()
    assert first.statement().rank > second.statement().rank


def test_a_rotated_transport_key_is_the_same_daemon(machines: Machines) -> None:
    first, second, _ = machines
    second.restore(first, first.backup())
    second.adopt()
    second.request(GATEWAY, RotateTransportKey())
    assert second.may_sign()


def test_replicas_that_are_left_out_get_nothing_and_are_no_homes(machines: Machines) -> None:
    first, second, _ = machines
    second.restore(first, first.backup())
    with pytest.raises(ReplicaNotFound):
        second.adopt("nobody")
    assert not second.may_sign()
    adopted = second.adopt("laptop")
    assert [(each.name, bool(each.removed), each.at_once) for each in adopted.replicas] == [
        ("laptop", True, True),
        ("server", False, False),
    ]
    assert [each.protocol for each in adopted.homes] == ["Chat"]
    assert second.may_sign(SERVER)
    with pytest.raises(ReplicaRemoved):
        second.request(NETWORK, SignReplica("alice", LAPTOP))


def test_a_forged_statement_has_no_effect(machines: Machines) -> None:
    first, *_ = machines
    mallory = Signer("mallory")
    public = first.store.find("alice").pair.public
    fields = [1, public, bytes(32), bytes(16), 2**39, 0, 0, "mallory"]
    for error, blob in (
        (BadMessage, b"nothing"),
        (BadSignature, mallory.sign("owner", fields)),
        (BadMessage, mallory.sign("owner", [1, bytes(mallory.key), *fields[2:]])),
        (BadSignature, mallory.sign("owner", fields, prefix="record")),
    ):
        with pytest.raises(error):
            first.note(blob)
    assert first.may_sign()


def test_a_list_that_is_not_the_identitys_is_not_restored(machines: Machines) -> None:
    first, second, _ = machines
    forged = Signer("mallory").sign("owner", [1, bytes(32), bytes(32), bytes(16), 0, 0, 0, "mallory"])
    content: EnrolmentFile = msgspec.structs.replace(decode_enrolments(first.backup()), owner=forged)
    second.restore(first, msgspec.json.encode(content))
    assert second.listed() == EnrolledReplicas(())


def test_a_backup_without_replicas_restores_as_before(machines: Machines) -> None:
    first, second, third = machines
    second.restore(first, b"")
    assert second.adopt() == EnrolledReplicas(())
    second.request(GATEWAY, EnrolReplica("alice", LAPTOP, "laptop"))
    assert second.may_sign()
    third.store.create("bob")
    assert third.store.replicas.export("bob", third.clock(), bytes) == b""


def test_only_the_highest_generation_is_carried_by_the_next_backup(machines: Machines) -> None:
    first, second, third = machines
    second.restore(first, first.backup())
    second.adopt()
    third.restore(second, second.backup())
    assert third.statement() == second.statement()
    assert not third.may_sign()
    assert f"{IDENTITIES}/alice/{REPLICAS}" == "identities/alice/replicas.json"
