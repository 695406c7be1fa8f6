"""Messages that wait to be sent, and payloads in parts."""

from __future__ import annotations

import msgspec
import pytest

from fastn_p2p_client.limits import MAX_PAYLOAD
from fastn_p2p_client.workers.messages import MAX_GROUP, FindWorkers, Part, decode_for_bridge, decode_for_worker
from fastn_p2p_client.workers.parts import OVERHEAD, PayloadAssembly, parts_of
from fastn_p2p_client.workers.pending_messages import PendingMessages


def test_messages_for_one_subject_share_a_nats_message_in_order() -> None:
    pending = PendingMessages()
    parts = [Part(bytes([number]), b"") for number in range(100)]
    for part in parts:
        pending.add("a", part)
        pending.add("b", part, "reply")
    assert pending
    taken = list(pending.drain(1 << 20))
    assert [(subject, reply) for subject, reply, _ in taken] == [("a", ""), ("b", "reply")]
    assert [decode_for_bridge(data) for _, _, data in taken] == [parts, parts]
    assert not pending
    assert pending.size == 0


@pytest.mark.parametrize("count", [1, 2, 15, 16, MAX_GROUP, MAX_GROUP + 1])
def test_groups_keep_to_the_largest_size_and_number(count: int) -> None:
    pending = PendingMessages()
    for _ in range(count):
        pending.add("a", Part(b"i" * 16, b"x" * 100))
    datas = [data for _, _, data in pending.drain(1000)]
    assert all(len(data) <= 1000 for data in datas)
    assert sum(len(decode_for_worker(data)) for data in datas) == count


def test_a_message_of_its_own_may_be_larger() -> None:
    pending = PendingMessages()
    pending.add("a", FindWorkers())
    pending.add("a", Part(b"", b"x" * 5000))
    assert [len(decode_for_worker(data)) for _, _, data in pending.drain(1000)] == [1, 1]


def test_a_payload_is_put_together_from_its_parts() -> None:
    payload = bytes(range(256)) * 100
    assembly = PayloadAssembly(len(payload))
    parts = list(parts_of(b"i" * 16, payload, 1000 + OVERHEAD))
    assert all(len(msgspec.msgpack.encode([part])) <= 1000 + OVERHEAD for part in parts)
    results = [assembly.add(part.data) for part in parts]
    assert results == [None] * (len(parts) - 1) + [payload]


def test_a_payload_that_is_larger_than_announced_or_allowed_is_refused() -> None:
    for size in (0, -1, MAX_PAYLOAD + 1):
        with pytest.raises(ValueError, match="bytes"):
            PayloadAssembly(size)
    with pytest.raises(ValueError, match="more bytes"):
        PayloadAssembly(3).add(b"four")
