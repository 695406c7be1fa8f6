"""Public keys: one text for each key, and nothing that is no key."""

from __future__ import annotations

import contextlib
import copy
import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.signing import SigningKey

from fastn_p2p_client.errors import InvalidKey
from fastn_p2p_client.keys import ID52_LENGTH, KEY_BYTES, PublicKey

WELL_FORMED = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"

SEEDS = st.binary(min_size=32, max_size=32)
ALPHABET = "0123456789abcdefghijklmnopqrstuv"


def key_of(seed: bytes) -> PublicKey:
    return PublicKey(bytes(SigningKey(seed).verify_key))


@given(SEEDS)
def test_text_and_bytes_lead_back_to_the_key(seed: bytes) -> None:
    key = key_of(seed)
    assert PublicKey(key.id52) == PublicKey(bytes(key)) == PublicKey(key) == key
    assert (len(key.id52), len(bytes(key))) == (ID52_LENGTH, KEY_BYTES)
    assert str(key) == key.id52
    assert set(key.id52) <= set(ALPHABET)
    assert hash(PublicKey(key.id52)) == hash(key)


def test_known_id52() -> None:
    assert PublicKey(WELL_FORMED).id52 == WELL_FORMED
    assert repr(PublicKey(WELL_FORMED)) == f"PublicKey('{WELL_FORMED}')"


@given(SEEDS, st.integers(0, ID52_LENGTH - 1), st.sampled_from(ALPHABET))
def test_altered_text_is_another_key_or_none(seed: bytes, position: int, character: str) -> None:
    key = key_of(seed)
    assume(key.id52[position] != character)
    with contextlib.suppress(InvalidKey):
        assert PublicKey(key.id52[:position] + character + key.id52[position + 1 :]) != key


@given(st.text(max_size=60) | st.text(ALPHABET, min_size=ID52_LENGTH, max_size=ID52_LENGTH))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidKey):
        assert PublicKey(text).id52 == text


@given(SEEDS)
def test_bytes_are_a_key_only_where_libsodium_agrees(raw: bytes) -> None:
    """libsodium also demands the main subgroup, so it may refuse more, never less."""
    try:
        PublicKey(raw)
    except InvalidKey:
        assert not crypto_core_ed25519_is_valid_point(raw)


@given(SEEDS)
def test_every_real_key_is_one(seed: bytes) -> None:
    assert crypto_core_ed25519_is_valid_point(bytes(key_of(seed)))


P = 2**255 - 19


@pytest.mark.parametrize(
    "raw",
    [
        bytes(32),
        (1).to_bytes(32, "little"),
        (P - 1).to_bytes(32, "little"),
        P.to_bytes(32, "little"),
        (P + 1).to_bytes(32, "little"),
        b"\xff" * 32,
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
        (2).to_bytes(32, "little"),
    ],
)
def test_rejects_points_of_small_order(raw: bytes) -> None:
    with pytest.raises(InvalidKey):
        PublicKey(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        WELL_FORMED[:-1],
        WELL_FORMED + "0",
        WELL_FORMED.upper(),
        WELL_FORMED[:-1] + "1",
        "w" + WELL_FORMED[1:],
        " " + WELL_FORMED[1:],
        "é" + WELL_FORMED[1:],
        WELL_FORMED[:-1] + "=",
    ],
)
def test_rejects_invalid_id52_with_a_reason(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        PublicKey(text)
    assert caught.value.text == text
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(InvalidKey, match=str(length)):
        PublicKey(b"x" * length)


def test_a_key_does_not_change_and_copies_are_equal() -> None:
    key = PublicKey(WELL_FORMED)
    with pytest.raises(AttributeError):
        key.text = "x"  # pyright: ignore[reportAttributeAccessIssue]
    assert pickle.loads(pickle.dumps(key)) == copy.deepcopy(key) == key


def test_keys_are_in_order_of_their_bytes_and_equal_nothing_else() -> None:
    keys = [key_of(bytes([number]) * 32) for number in range(20)]
    assert sorted(keys) == sorted(keys, key=bytes)
    assert len({*keys, *keys}) == 20
    assert keys[0] != keys[0].id52
    assert keys[0] != bytes(keys[0])
