"""A packet of a directory is taken only if the key that it is found under signed it, unchanged."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from fastn_p2p_actors.credentials.pkarr import (
    HEADER_BYTES,
    MAX_BODY,
    MAX_PACKET,
    MAX_SEQUENCE,
    PacketTooLarge,
    decode_key,
    encode_key,
    join_body,
    read_signed_packet,
    signing_input,
)
from fastn_p2p_client.errors import BadMessage, BadSignature

SIGNER = SigningKey(hashlib.blake2b(b"alice", digest_size=32).digest())
KEY = bytes(SIGNER.verify_key)
PACKET = b"a DNS message"


def signed(sequence: int = 1, packet: bytes = PACKET, *, covers: bytes | None = None) -> bytes:
    signature = SIGNER.sign(signing_input(sequence, packet) if covers is None else covers).signature
    return join_body(signature, sequence, packet)


def test_a_key_in_z_base_32_is_that_of_the_specification() -> None:
    # Vectors of the specification of z-base-32, with bytes that a whole number of characters holds.
    assert encode_key(b"\0" * 32) == "y" * 52
    assert encode_key(b"\xff" * 32) == "9" * 51 + "o"  # 256 bits: the last character holds one of five
    assert encode_key(b"\xf0\xbf\xc7\x00\x00").startswith("6n9hq")
    assert encode_key(b"\xd4\x7a\x04\x00\x00").startswith("4t7ye")


@given(st.binary(min_size=32, max_size=32))
def test_keys_have_one_text_each(key: bytes) -> None:
    text = encode_key(key)
    assert len(text) == 52
    assert decode_key(text) == key


@pytest.mark.parametrize(
    "text",
    ["", "y" * 51, "y" * 53, "y" * 51 + "b", "y" * 51 + "l", "Y" * 52, "y" * 51 + "=", "y" * 51 + "é", "y" * 51 + "\n"],
)
def test_other_texts_are_no_keys(text: str) -> None:
    with pytest.raises(BadMessage):
        decode_key(text)


def test_the_signature_covers_a_mutable_item_of_bep_44() -> None:
    assert signing_input(4, b"Hello world!") == b"3:seqi4e1:v12:Hello world!"


def test_a_body_is_signature_sequence_and_packet() -> None:
    body = signed(sequence=1_700_000_000_000_000)
    packet = read_signed_packet(KEY, body)
    assert (bytes(packet.key), packet.sequence, packet.packet) == (KEY, 1_700_000_000_000_000, PACKET)
    assert packet.body() == body


@pytest.mark.parametrize("position", [0, 63, 64, 71, 72, -1])
def test_a_changed_byte_is_noticed(position: int) -> None:
    body = bytearray(signed())
    body[position] ^= 1
    with pytest.raises(BadSignature, match="packet of the directory"):
        read_signed_packet(KEY, bytes(body))


def test_a_packet_of_another_key_is_refused() -> None:
    with pytest.raises(BadSignature):
        read_signed_packet(bytes(SigningKey.generate().verify_key), signed())


def test_a_signature_over_something_else_is_refused() -> None:
    with pytest.raises(BadSignature):
        read_signed_packet(KEY, signed(covers=PACKET))


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_of_small_order_signs_nothing(key: bytes) -> None:
    with pytest.raises(BadSignature):
        read_signed_packet(key, bytes(64) + bytes(8) + PACKET)


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES - 1])
def test_a_body_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(BadMessage):
        read_signed_packet(KEY, signed()[:size])


def test_a_packet_has_at_most_a_thousand_bytes() -> None:
    assert len(read_signed_packet(KEY, signed(packet=bytes(MAX_PACKET))).body()) == MAX_BODY
    with pytest.raises(PacketTooLarge, match="1001 bytes, the limit is 1000"):
        read_signed_packet(KEY, bytes(MAX_BODY + 1))


def test_a_sequence_fits_a_signed_integer() -> None:
    assert read_signed_packet(KEY, signed(sequence=MAX_SEQUENCE)).sequence == MAX_SEQUENCE
    with pytest.raises(BadMessage, match="no sequence"):
        read_signed_packet(KEY, bytes(64) + b"\xff" * 8 + PACKET)


@given(st.binary(max_size=MAX_BODY + 10))
def test_any_bytes_are_refused_with_an_error_of_ours(body: bytes) -> None:
    with pytest.raises((BadMessage, BadSignature)):
        read_signed_packet(KEY, body)
