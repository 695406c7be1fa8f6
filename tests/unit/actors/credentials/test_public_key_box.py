"""Boxes between two key pairs: the same bytes as those of ``nacl.bindings``."""

import pytest
from nacl import bindings

from fastn_p2p_actors.credentials.public_key_box import OVERHEAD, make_keys, open_box, seal_box, shared_key

NONCE = bytes(range(24))


@pytest.mark.parametrize("message", [b"", b"x", bytes(1000)])
def test_each_side_opens_what_the_other_has_sealed(message: bytes) -> None:
    public, secret = make_keys()
    other_public, other_secret = bindings.crypto_box_keypair()
    shared = shared_key(other_public, secret)
    box = seal_box(message, NONCE, shared)
    assert len(box) == len(message) + OVERHEAD
    assert box == bindings.crypto_box(message, NONCE, other_public, secret)
    assert bindings.crypto_box_open(box, NONCE, public, other_secret) == message
    assert open_box(box, NONCE, shared_key(public, other_secret)) == message


def test_a_damaged_box_another_nonce_and_another_key_open_nothing() -> None:
    public, secret = make_keys()
    shared = shared_key(public, secret)
    box = seal_box(b"message", NONCE, shared)
    assert open_box(box[:-1] + bytes([box[-1] ^ 1]), NONCE, shared) is None
    assert open_box(box[: OVERHEAD - 1], NONCE, shared) is None
    assert open_box(box, bytes(24), shared) is None
    assert open_box(box, NONCE[1:], shared) is None
    assert open_box(box, NONCE, bytes(32)) is None


def test_keys_and_nonces_of_another_length_are_refused() -> None:
    _, secret = make_keys()
    for public in (bytes(31), bytes(32)):  # the second is a point of small order
        with pytest.raises(ValueError, match="key"):
            shared_key(public, secret)
    with pytest.raises(ValueError, match="24 bytes"):
        seal_box(b"", bytes(23), bytes(32))
