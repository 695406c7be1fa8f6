"""Transfer of a key: only its receiver opens it, once, and wiping leaves nothing."""

from __future__ import annotations

import os

import pytest

from fastn_p2p_actors.credentials.key_transfer import KeyReceiver, seal_key, wipe
from fastn_p2p_actors.credentials.sodium import ffi
from fastn_p2p_client.errors import InternalError


def test_receiver_opens_what_was_sealed_for_it_and_nobody_else() -> None:
    key = os.urandom(32)
    receiver, other = KeyReceiver(), KeyReceiver()
    sealed = seal_key(ffi.from_buffer("unsigned char[]", key), receiver.public)
    assert key not in sealed
    with pytest.raises(InternalError):
        other.open(sealed)
    assert receiver.open(sealed) == key


@pytest.mark.parametrize("change", [lambda sealed: b"", lambda sealed: sealed[:-1], lambda sealed: sealed[:-1] + b"x"])
def test_changed_box_is_refused(change: object) -> None:
    receiver = KeyReceiver()
    sealed = seal_key(ffi.new("unsigned char[]", 32), receiver.public)
    with pytest.raises(InternalError):
        receiver.open(change(sealed))  # type: ignore[operator]


def test_receiver_opens_one_key_only() -> None:
    receiver = KeyReceiver()
    sealed = seal_key(ffi.new("unsigned char[]", 32), receiver.public)
    assert receiver.open(sealed) == bytes(32)
    with pytest.raises(InternalError):
        receiver.open(sealed)


def test_wiped_key_is_zeros_for_everyone_who_has_it() -> None:
    receiver = KeyReceiver()
    key = receiver.open(seal_key(ffi.from_buffer("unsigned char[]", os.urandom(32)), receiver.public))
    same = [key]
    wipe(key)
    assert same[0] == bytes(32)


def test_key_of_another_length_is_no_receiver() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal_key(ffi.new("unsigned char[]", 32), b"short")
