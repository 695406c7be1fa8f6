"""Batches of signatures: one reply to each request, whatever becomes of the others."""

from __future__ import annotations

import msgspec
import pytest

from fastn_p2p_actors.credentials.peer_record import MAX_ADDRESSES, MAX_RELAYS, EndpointEntry
from fastn_p2p_actors.vault.access_policy import NETWORK
from fastn_p2p_actors.vault.last_replies import Signed
from fastn_p2p_actors.vault.messages import (
    MAX_BATCH,
    SignBatch,
    SignDelegation,
    SignedDelegation,
    SignedRecord,
    SignedRecordPacket,
    SignPacket,
    SignRecord,
    VaultReply,
)
from fastn_p2p_client.errors import BadMessage, IdentityNotFound, InternalError
from fastn_p2p_client.ipc.messages import ErrorReply, encode
from fastn_p2p_client.limits import MAX_HEADER
from tests.support.vault_setup import VaultSetup

_replies: msgspec.msgpack.Decoder[VaultReply] = msgspec.msgpack.Decoder(VaultReply)


def test_batch_has_a_reply_to_each_request(setup: VaultSetup) -> None:
    requests = (
        SignDelegation("alice"),
        SignRecord("nobody", (), ()),
        SignPacket("alice", (), ("192.0.2.1:1",)),
        SignRecord("alice", ("no relay",), ()),
        SignRecord("alice", (), ()),
    )
    replies = setup.request(NETWORK, SignBatch(requests)).replies
    kinds = [SignedDelegation, ErrorReply, SignedRecordPacket, ErrorReply, SignedRecord]
    assert [type(reply) for reply in replies] == kinds
    errors = [reply.error() for reply in replies if isinstance(reply, ErrorReply)]
    assert [error.code for error in errors] == [IdentityNotFound.code, BadMessage.code]


def test_defect_in_a_batch_is_the_reply_to_one_request(setup: VaultSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = setup.vault._sign

    def broken(request: SignDelegation | SignRecord) -> Signed:
        if isinstance(request, SignRecord):
            raise RuntimeError("something private")
        return sign(request)

    monkeypatch.setattr(setup.vault, "_sign", broken)
    batch = SignBatch((SignRecord("alice", (), ()), SignDelegation("alice")))
    failed, signed = setup.request(NETWORK, batch).replies
    assert isinstance(failed.error(), InternalError)
    assert "private" not in str(failed.error())
    assert isinstance(signed, SignedDelegation)


def test_replies_of_the_largest_batch_fit_into_a_header(setup: VaultSetup) -> None:
    addresses = tuple(f"[2001:db8:1234:5678:9abc:def0:1234:{number:04x}]:65535" for number in range(MAX_ADDRESSES))
    relays = tuple(f"https://relay-{number}.{'x' * 63}.example/" for number in range(MAX_RELAYS))
    others = tuple(
        EndpointEntry(setup.request(NETWORK, SignDelegation("alice")).blob, 1, relays, addresses[:2]) for _ in range(7)
    )
    request = SignPacket("alice", relays, addresses, others)
    assert len(encode(setup.request(NETWORK, SignBatch((request,) * MAX_BATCH)))) <= MAX_HEADER
    answer = setup.server.handle(NETWORK, encode(SignBatch((SignDelegation("alice"),) * (MAX_BATCH + 1))))
    reply = _replies.decode(answer or b"")
    assert isinstance(reply, ErrorReply)
    assert isinstance(reply.error(), BadMessage)
