"""Records for the LAN: readable with the identity's public key, and without it opaque."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.credentials.lan_record import LABEL_CHARACTERS, lan_label, open_from_lan, seal_for_lan
from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.tickets import MAX_RECORD
from tests.support.signer import Signer

BOB = bytes(Signer("bob").key)
EVE = bytes(Signer("eve").key)


@pytest.mark.parametrize("size", [0, 1, 61, 62, 63, 700, MAX_RECORD])
def test_record_comes_back(size: int) -> None:
    record = bytes(range(256)) * (size // 256 + 1)
    assert open_from_lan(BOB, seal_for_lan(BOB, record[:size])) == record[:size]


def test_other_identity_cannot_read_it() -> None:
    with pytest.raises(BadMessage, match="not encrypted for this identity"):
        open_from_lan(EVE, seal_for_lan(BOB, b"addresses"))


def test_nothing_shows() -> None:
    sealed = seal_for_lan(BOB, b"192.168.1.7:4000" + BOB)
    assert b"192.168" not in sealed
    assert BOB not in sealed
    assert sealed != seal_for_lan(BOB, b"192.168.1.7:4000" + BOB), "the nonce is new each time"


def test_length_tells_little() -> None:
    assert len({len(seal_for_lan(BOB, bytes(size))) for size in range(400, 446)}) == 1


def test_every_changed_byte_is_noticed() -> None:
    sealed = seal_for_lan(BOB, b"record")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(BadMessage):
            open_from_lan(BOB, bytes(changed))
        with pytest.raises(BadMessage):
            open_from_lan(BOB, sealed[:at])


@given(st.binary(max_size=200))
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(BadMessage):
        open_from_lan(BOB, garbage)
    with pytest.raises(BadMessage):
        open_from_lan(BOB, b"\x01" + garbage)


def test_label() -> None:
    label = lan_label(BOB)
    assert len(label) == LABEL_CHARACTERS
    assert set(label) <= set("0123456789abcdefghijklmnopqrstuv")
    assert label == lan_label(BOB)
    assert label != lan_label(EVE)
    assert label[:10] not in Signer("bob").key.id52


def test_format_is_stable() -> None:
    """Daemons of other versions must find each other: these values are never to change."""
    key = bytes(range(32))
    sealed = bytes.fromhex(SEALED)
    assert lan_label(key) == LABEL
    assert open_from_lan(key, sealed) == b"record"


LABEL = "6f3fmcj5u6stsqshj9au"
SEALED = (
    "019d9fb1b8cd9d26692d5a211336464afa19f1e4a5217df11b608c4c285caf8f52a4c5237a27877fc8ca2728e8504d92f4d6"
    "6d2f9f967e4666420b7c3de58da75d93619147126e165343628bdd7a68ea532e794d9caa55b579d14e784f1f4b1a8afd67d5"
    "b8cfbc9ac1"
)
