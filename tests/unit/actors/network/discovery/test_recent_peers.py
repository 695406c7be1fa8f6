"""Recent peers: which peers are dialled after a start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastn_p2p_actors.network.discovery.recent_peers import MAX_RECENT_PEERS, RecentPeers
from fastn_p2p_client.errors import PeerUnreachable
from tests.support.signer import DAY, NOW


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class StubRouter:
    """Router whose peers were connected at the times ``seen``. Odd ones cannot be reached."""

    def __init__(self, seen: dict[bytes, float] | None = None) -> None:
        self.seen = seen or {}
        self.dialled: list[bytes] = []

    def last_connected(self) -> dict[bytes, float]:
        return self.seen

    def open_to(self, _target: bytes) -> None:
        return None

    async def connect(self, target: bytes, peer: str) -> None:
        self.dialled.append(target)
        if target[-1] % 2:
            raise PeerUnreachable(peer=peer, reason="nobody answers")


def recent_peers(path: Path, router: StubRouter, *, without: bytes = b"") -> RecentPeers:
    book = SimpleNamespace(by_key=lambda each: None if each == without else each, name_of=lambda each: each.hex())
    return RecentPeers(path, cast(Any, router), cast(Any, book), lambda: NOW, jitter=lambda: 0.0)


async def dialled(path: Path, *, without: bytes = b"") -> list[bytes]:
    """Return whom a daemon dials that starts with the file."""
    router = StubRouter()
    started = recent_peers(path, router, without=without)
    started.connect_all()
    await asyncio.gather(*started._tasks)
    return router.dialled


async def test_dials_each_peer_that_was_connected_lately_once(tmp_path: Path) -> None:
    file = tmp_path / "neighbours.json"
    assert await dialled(file) == []
    recent_peers(file, StubRouter({key(1): NOW - 5, key(2): NOW - 9, key(3): NOW - 8 * DAY})).save()
    assert await dialled(file) == [key(1), key(2)]
    assert await dialled(file, without=key(1)) == [key(2)], "it was removed from the address book"


async def test_dials_a_bounded_number_those_that_were_connected_last(tmp_path: Path) -> None:
    file = tmp_path / "neighbours.json"
    recent_peers(file, StubRouter({key(number): NOW - number for number in range(3 * MAX_RECENT_PEERS)})).save()
    assert await dialled(file) == [key(number) for number in range(MAX_RECENT_PEERS)]


async def test_a_peer_that_was_not_reached_this_time_stays_recent(tmp_path: Path) -> None:
    file = tmp_path / "neighbours.json"
    recent_peers(file, StubRouter({key(1): NOW - 5})).save()
    started = recent_peers(file, StubRouter({key(2): NOW}))
    started.connect_all()
    started.close()
    started.save()
    assert await dialled(file) == [key(2), key(1)]


async def test_a_damaged_file_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "neighbours.json"
    for text in ("", "[]", '{"xyz": 1}', '{"ab": "cd"}'):
        file.write_text(text)
        assert await dialled(file) == []
