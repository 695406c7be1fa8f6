"""Delegations, records, packets and invitations that the vault signs."""

from __future__ import annotations

import msgspec
import pytest

from fastn_p2p_actors.credentials import (
    EndpointEntry,
    EpochTracker,
    SequenceTracker,
    read_record,
    verify_delegation,
    verify_record,
)
from fastn_p2p_actors.credentials.envelope import seal, signing_input
from fastn_p2p_actors.credentials.invitation import Invitation, read_invitation
from fastn_p2p_actors.credentials.pkarr import HEADER_BYTES, MAX_PACKET, read_signed_packet, sequence_of
from fastn_p2p_actors.credentials.record_packet import record_in
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.messages import (
    CreateKey,
    GetTransport,
    ListKeys,
    RevokeKey,
    SignDelegation,
    SignedDelegation,
    SignedRecord,
    SignPacket,
    SignRecord,
    TransportKey,
)
from fastn_p2p_actors.vault.vault import DELEGATION_SECONDS
from fastn_p2p_client.errors import BadMessage, BadSignature, IdentityRevoked, InvalidName
from tests.support.signer import NOW, Signer
from tests.support.vault_setup import VaultSetup, invitation_of_alice


def test_delegation_is_for_the_vaults_own_transport_key_alone(setup: VaultSetup) -> None:
    transport = setup.request(NETWORK, GetTransport())
    assert isinstance(transport, TransportKey)
    signed = setup.request(NETWORK, SignDelegation("alice"))
    assert isinstance(signed, SignedDelegation)
    delegation = verify_delegation(signed.blob, now=NOW, endpoint=transport.public, epochs=EpochTracker())
    alice = setup.request(GATEWAY, ListKeys()).identities[0]
    assert delegation.identity == alice.public
    assert (delegation.epoch, delegation.lineage) == (transport.epoch, transport.lineage)
    assert (delegation.not_before, delegation.not_after) == (NOW, NOW + DELEGATION_SECONDS)
    assert signed.not_after == delegation.not_after


def test_record_holds_and_each_one_replaces_the_one_before(setup: VaultSetup) -> None:
    sequences = SequenceTracker()
    transport = setup.request(NETWORK, GetTransport())
    seen: list[int] = []
    for step in (0.0, 0.0, 10.0, -3600.0):
        setup.clock.now += step
        signed = setup.request(NETWORK, SignRecord("alice", ("https://relay.example/",), ("192.0.2.1:1", "[::1]:2")))
        assert isinstance(signed, SignedRecord)
        record = verify_record(signed.blob, now=setup.clock.now, sequences=sequences)
        (own,) = record.endpoints
        assert (own.delegation.endpoint, own.sequence) == (transport.public, record.sequence)
        assert (own.relays, own.addresses) == (("https://relay.example/",), ("192.0.2.1:1", "[::1]:2"))
        assert signed.expires == record.expires
        seen.append(record.sequence)
    assert seen == sorted(set(seen))


def entry_of(setup: VaultSetup, endpoint: bytes, sequence: int, until: float = NOW + 3600) -> EndpointEntry:
    """Alice's entry of an endpoint, as the vault of another daemon signs it."""
    alice = next(each for each in setup.vault._store.page("", 1).keys)
    fields = [1, alice.pair.public, endpoint, bytes(16), 1, NOW - 3600, int(until), ["speak"]]
    body = msgspec.msgpack.encode(fields)
    delegation = seal(body, alice.pair.sign(signing_input("delegation", body)))
    return EndpointEntry(delegation, sequence, (), ("192.0.2.9:9",))


def test_record_keeps_valid_endpoints_of_other_daemons(setup: VaultSetup) -> None:
    transport = setup.request(NETWORK, GetTransport()).public
    now = int(setup.clock.now * 1000)
    good = entry_of(setup, b"2" * 32, now - 5)
    left_out = [
        entry_of(setup, transport, now - 5),
        entry_of(setup, b"3" * 32, now - 5, NOW - 60),
        entry_of(setup, b"4" * 32, now + 60_000),
    ]
    signed = setup.request(NETWORK, SignRecord("alice", (), ("192.0.2.1:1",), (good, *left_out)))
    record = verify_record(signed.blob, now=setup.clock.now)
    assert [each.delegation.endpoint for each in record.endpoints] == [transport, b"2" * 32]
    assert [each.sequence for each in record.endpoints] == [record.sequence, now - 5]


def test_packet_holds_the_record_and_each_one_replaces_the_one_before(setup: VaultSetup) -> None:
    key = setup.request(GATEWAY, ListKeys()).identities[0].public
    sequences: list[int] = []
    for step in (0.0, 0.0, -3600.0):
        setup.clock.now += step
        signed = setup.request(NETWORK, SignPacket("alice", ("https://relay.example/",), ("192.0.2.1:1",)))
        packet = read_signed_packet(key, signed.body)
        assert record_in(packet) == signed.record
        assert verify_record(signed.record, now=setup.clock.now).expires == signed.expires
        sequences.append(packet.sequence)
    assert sequences == sorted(set(sequences))


def test_a_packet_gets_a_higher_sequence_than_the_one_that_a_directory_has(setup: VaultSetup) -> None:
    ahead = 2 * 1_000_000 * NOW
    signed = setup.request(NETWORK, SignPacket("alice", (), ("192.0.2.1:1",), above=ahead))
    assert sequence_of(signed.body) == ahead + 1
    assert read_record(signed.record).sequence == 1000 * NOW  # the record says when it was made all the same
    assert sequence_of(setup.request(NETWORK, SignPacket("alice", (), ())).body) < ahead


def test_a_withdrawn_packet_has_the_other_endpoints_only(setup: VaultSetup) -> None:
    key = setup.request(GATEWAY, ListKeys()).identities[0].public
    alone = setup.request(NETWORK, SignPacket("alice", (), ("192.0.2.1:1",), withdrawn=True))
    assert (alone.record, alone.expires) == (b"", 0)
    assert record_in(read_signed_packet(key, alone.body)) == b""
    other = entry_of(setup, b"2" * 32, int(setup.clock.now * 1000) - 5)
    signed = setup.request(NETWORK, SignPacket("alice", (), ("192.0.2.1:1",), (other,), withdrawn=True))
    record = verify_record(record_in(read_signed_packet(key, signed.body)), now=setup.clock.now)
    assert [each.delegation.endpoint for each in record.endpoints] == [b"2" * 32]


def test_the_largest_record_fits_into_a_packet(setup: VaultSetup) -> None:
    addresses = tuple(f"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}]:65535" for number in range(16))
    signed = setup.request(NETWORK, SignPacket("alice", ("https://relay.example/",) * 4, addresses))
    assert 900 < len(signed.body) - HEADER_BYTES <= MAX_PACKET


@pytest.mark.parametrize(
    "request_",
    [
        SignRecord("alice", ("ftp://plain.example/",), ()),
        SignRecord("alice", (), ("host.example:1",)),
        SignRecord("alice", (), (), (EndpointEntry(Signer("mallory").delegation(), 1, (), ()),)),
        SignRecord("alice", (), (), (EndpointEntry(b"no delegation", 1, (), ()),)),
        SignRecord("alice", (), ("192.0.2.1:1",) * 17),
        SignRecord("alice", ("https://relay.example/",) * 5, ()),
    ],
)
def test_invalid_record_is_not_signed(setup: VaultSetup, request_: SignRecord) -> None:
    with pytest.raises((BadMessage, BadSignature)):
        setup.request(NETWORK, request_)


def test_transport_key_is_not_printed() -> None:
    assert "secret" not in repr(TransportKey(b"secret-" * 4, bytes(32), 1, bytes(16)))


def test_invitation_is_signed_with_what_was_asked_for_and_nothing_else(setup: VaultSetup) -> None:
    request = invitation_of_alice(setup)
    signed = setup.request(NETWORK, request)
    read = read_invitation(signed.blob)
    assert read == Invitation(64, read.identity, NOW, NOW + 60, 2, ("Chat/default",), request.record, bytes(16))
    assert bytes(16) not in repr(signed).encode()
    assert read_record(request.record).identity == read.key
    with pytest.raises(BadMessage):  # a signature of one kind is none of another
        read_record(signed.blob)
    setup.request(GATEWAY, CreateKey("bob"))
    of_bob = setup.request(NETWORK, SignRecord("bob", (), ("192.0.2.1:1",))).blob
    for wrong in ({"record": of_bob}, {"record": b"anything"}, {"expires": NOW}, {"bindings": ("anything",)}):
        with pytest.raises((BadSignature, BadMessage, InvalidName)):
            setup.request(NETWORK, invitation_of_alice(setup, **wrong))
    setup.request(GATEWAY, RevokeKey("alice"))
    with pytest.raises(IdentityRevoked):
        setup.request(NETWORK, request)
