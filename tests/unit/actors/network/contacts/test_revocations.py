"""Known revocations: the first one of an identity stays, across restarts, and none is ever forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_actors.credentials import read_revocation
from fastn_p2p_actors.network.contacts import revocations as module
from fastn_p2p_actors.network.contacts.revocations import Revocations
from fastn_p2p_client.errors import IdentityRevoked
from tests.support.signer import NOW, Signer

ALICE, BOB, CAROL = map(Signer, ("alice", "bob", "carol"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".revoked.json"


def opened(path: Path) -> Revocations:
    known = Revocations(path, lambda: float(NOW))
    assert known.load() == ""
    return known


def add(known: Revocations, blob: bytes, name: str = "", packet: bytes = b"") -> bool:
    return known.add(read_revocation(blob), blob, name, packet)


def test_first_revocation_stays(path: Path) -> None:
    known = opened(path)
    first, second = ALICE.revocation(bytes(BOB.key)), ALICE.revocation(bytes(CAROL.key), NOW - 1000)
    assert add(known, first)
    assert path.stat().st_mode & 0o777 == 0o600
    written = path.stat().st_ino
    assert not add(known, second)
    assert not add(known, first)
    assert path.stat().st_ino == written, "a replay writes nothing"
    for each in (known, opened(path)):
        with pytest.raises(IdentityRevoked) as caught:
            each.check(bytes(ALICE.key), "ally")
        assert caught.value.fields() == {
            "identity": "ally",
            "revoked": "2027-01-15T08:00:00Z",
            "successor": BOB.key.id52,
        }
        each.check(bytes(BOB.key))


def test_own_identity_has_a_name_and_a_packet(path: Path) -> None:
    """Another daemon may have told of it first."""
    known = opened(path)
    blob = ALICE.revocation()
    assert add(known, blob)
    assert known.named("alice") is None
    assert not add(known, blob, "alice", b"packet")
    found = opened(path).named("alice")
    assert found is not None
    assert (found.packet, found.blob) == (b"packet", blob)
    with pytest.raises(IdentityRevoked, match="alice was revoked"):
        known.check(bytes(ALICE.key))
    known.release_name("alice", bytes(ALICE.key))
    assert known.named("alice") is not None
    known.release_name("alice", bytes(BOB.key))
    assert opened(path).named("alice") is None
    assert bytes(ALICE.key) in opened(path)


def test_number_of_peers_is_limited_and_own_identities_are_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOKED", 1)
    known = opened(path)
    assert add(known, ALICE.revocation())
    assert not add(known, BOB.revocation())
    assert add(known, CAROL.revocation(), "carol")
    assert [each.revocation.key for each in known] == [ALICE.key, CAROL.key]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"revoked": [{"revocation": "AAAA", "arrived_ms": 1}]}'])
def test_damaged_file_is_a_warning(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    known = Revocations(path, lambda: float(NOW))
    assert str(path) in known.load()
    assert len(known) == 0


def test_revocation_counts_although_it_cannot_be_written(tmp_path: Path) -> None:
    known = Revocations(tmp_path / "missing" / ".revoked.json", lambda: float(NOW))
    assert add(known, ALICE.revocation())
    assert bytes(ALICE.key) in known
