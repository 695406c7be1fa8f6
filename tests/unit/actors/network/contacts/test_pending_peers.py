"""Strangers that were refused: a flood displaces its own entries, and a restart keeps the list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fastn_p2p_actors.network.contacts import pending_peers as module
from fastn_p2p_actors.network.contacts.pending_peers import MAX_COUNT, MAX_PENDING, MAX_WANTED, PendingPeers
from fastn_p2p_client.keys import id52_of

KEYS = [bytes(SigningKey(number.to_bytes(32, "big")).verify_key) for number in range(3 * MAX_PENDING)]
CHAT = ("alice", "Chat", "default")
FLOOD = "203.0.113.0/24"
HOME = "198.51.100.0/24"


def endpoint(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".knocks.json"


def listed(pending: PendingPeers) -> list[str]:
    return [each.id52 for each in pending.infos()]


async def test_entry_says_who_wanted_what_how_often_and_when(path: Path) -> None:
    now = 1000.0
    pending = PendingPeers(path, lambda: now)
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    now = 1010.0
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    pending.note(KEYS[0], endpoint(1), HOME, ("alice", "Mail", "default"))
    (entry,) = pending.infos()
    assert (entry.id52, entry.count, entry.first_ms, entry.last_ms) == (id52_of(KEYS[0]), 3, 1_000_000, 1_010_000)
    assert [(each.protocol, each.count) for each in entry.wanted] == [("Mail", 1), ("Chat", 2)]


@pytest.mark.parametrize(
    "source",
    [
        lambda number: (endpoint(7), FLOOD),
        lambda number: (endpoint(number), FLOOD),
        lambda number: (endpoint(7), ""),
    ],
    ids=["one endpoint", "an endpoint for each identity, of one network", "one endpoint through a relay"],
)
async def test_flood_displaces_its_own_entries(path: Path, source: Callable[[int], tuple[bytes, str]]) -> None:
    pending = PendingPeers(path, lambda: 1.0)
    friends = KEYS[:3]
    for number, key in enumerate(friends):
        pending.note(key, endpoint(1000 + number), HOME, CHAT)
    for number, key in enumerate(KEYS[3:]):
        spoke_through, network = source(number)
        pending.note(key, spoke_through, network, CHAT)
    assert len(pending) == MAX_PENDING
    assert all(key in pending for key in friends)
    assert KEYS[-1] in pending
    assert KEYS[3] not in pending, "the flood's oldest entry goes first"


async def test_loud_endpoint_of_a_network_goes_before_a_quiet_one(path: Path) -> None:
    pending = PendingPeers(path, lambda: 1.0)
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    for key in KEYS[1 : 2 * MAX_PENDING]:
        pending.note(key, endpoint(2), HOME, CHAT)
    assert KEYS[0] in pending


async def test_entry_is_bounded(path: Path) -> None:
    pending = PendingPeers(path, lambda: 1.0)
    for number in range(3 * MAX_WANTED):
        pending.note(KEYS[0], endpoint(1), HOME, ("alice", "Chat", f"i{number}"))
    (entry,) = pending.infos()
    assert [each.instance for each in entry.wanted] == [f"i{3 * MAX_WANTED - 1 - n}" for n in range(MAX_WANTED)]


async def test_counts_end_at_their_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COUNT", 2)
    pending = PendingPeers(path, lambda: 1.0)
    for _ in range(5):
        pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    (entry,) = pending.infos()
    assert (entry.count, entry.wanted[0].count) == (2, 2)
    assert MAX_COUNT < 1 << 63, "it travels as an integer of msgpack"


async def test_restart_keeps_the_list_in_its_order(path: Path) -> None:
    pending = PendingPeers(path, lambda: 5.0)
    for key in KEYS[:4]:
        pending.note(key, endpoint(1), HOME, CHAT)
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    pending.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = PendingPeers(path, lambda: 9.0)
    assert again.load() == ""
    assert again.infos() == pending.infos()


async def test_full_list_has_a_small_file(path: Path) -> None:
    pending = PendingPeers(path, lambda: 5.0)
    for key in KEYS:
        for number in range(MAX_WANTED):
            pending.note(key, endpoint(1), "", ("a" * 64, "P" * 64, f"{number}" * 64))
    pending.close()
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("content", [b"", b"{", b'{"knocks": 7}', b'{"knocks": [{"id52": "x"}]}', b"\xff"])
async def test_damaged_file_is_said_and_not_used(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    pending = PendingPeers(path, lambda: 1.0)
    assert str(path) in pending.load()
    assert len(pending) == 0
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    assert listed(pending) == [id52_of(KEYS[0])]


async def test_disk_that_takes_nothing_costs_nothing_else(tmp_path: Path) -> None:
    pending = PendingPeers(tmp_path / "no-such-directory" / "knocks.json", lambda: 1.0)
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    pending.close()
    assert KEYS[0] in pending


async def test_only_new_and_removed_entries_are_news(path: Path) -> None:
    pending = PendingPeers(path, lambda: 1.0)
    news: list[int] = []
    pending.on_change = lambda: news.append(len(pending))
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    pending.note(KEYS[0], endpoint(1), HOME, CHAT)
    assert pending.remove(KEYS[0])
    assert not pending.remove(KEYS[0])
    assert news == [1, 0]
