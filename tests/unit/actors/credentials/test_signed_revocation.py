"""A revocation is accepted only from its identity, and ends every delegation of it."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.credentials import (
    EpochTracker,
    is_revocation,
    peek_record,
    read_record,
    read_revocation,
    verify_delegation,
)
from fastn_p2p_client.errors import BadMessage, BadSignature, IdentityRevoked
from tests.support.signer import NOW, Signer

ALICE = Signer("alice")
BOB = Signer("bob")
FIELDS = [1, bytes(ALICE.key), NOW, bytes(BOB.key)]
REVOCATION = ALICE.sign("revocation", FIELDS)


def test_revocation_names_identity_and_successor() -> None:
    revocation = read_revocation(REVOCATION)
    assert (revocation.key, revocation.issued, revocation.successor_id52) == (ALICE.key, NOW, BOB.key.id52)
    assert read_revocation(ALICE.sign("revocation", [*FIELDS[:3], b""])).successor_id52 == ""


def test_revocation_of_another_signer() -> None:
    with pytest.raises(BadSignature):
        read_revocation(BOB.sign("revocation", FIELDS))


@pytest.mark.parametrize("kind", ["delegation", "record"])
def test_signature_of_another_kind(kind: str) -> None:
    with pytest.raises(BadSignature):
        read_revocation(ALICE.sign("revocation", FIELDS, prefix=kind))


@pytest.mark.parametrize("successor", [bytes(ALICE.key), bytes(32), b"short"])
def test_successor_that_is_no_other_identity(successor: bytes) -> None:
    with pytest.raises(BadMessage):
        read_revocation(ALICE.sign("revocation", [*FIELDS[:3], successor]))


def test_daemon_that_knows_only_records_ignores_it() -> None:
    for read in (read_record, peek_record):
        with pytest.raises(BadMessage):
            read(REVOCATION)


def test_records_are_no_revocations() -> None:
    assert is_revocation(REVOCATION)
    assert not any(map(is_revocation, (ALICE.record(), ALICE.delegation(), b"")))


def test_valid_delegation_of_a_revoked_identity() -> None:
    revocation = read_revocation(REVOCATION)

    def check(identity: bytes) -> None:
        if identity == revocation.identity:
            raise revocation.error()

    epochs = EpochTracker(check_revoked=check)
    verify_delegation(BOB.delegation(), now=NOW, epochs=epochs)
    with pytest.raises(IdentityRevoked, match=f"the successor {BOB.key.id52}"):
        verify_delegation(ALICE.delegation(), now=NOW, epochs=epochs)
