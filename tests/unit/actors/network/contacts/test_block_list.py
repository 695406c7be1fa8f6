"""Blocked identities and their endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from fastn_p2p_actors.network.contacts.block_list import MAX_ENDPOINTS, BlockList
from fastn_p2p_client.errors import StorageFailed
from fastn_p2p_client.keys import id52_of

BOB, EVE = (bytes(SigningKey(bytes([number]) * 32).verify_key) for number in (1, 2))


def endpoint(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".blocked.json"


def reopened(path: Path) -> BlockList:
    again = BlockList(path, lambda: 9.0)
    assert again.load() == ""
    return again


async def test_identity_is_blocked_on_disk_at_once(path: Path) -> None:
    blocked = BlockList(path, lambda: 7.0)
    blocked.add(EVE, "eve")
    assert path.stat().st_mode & 0o777 == 0o600
    again = reopened(path)
    assert EVE in again
    assert BOB not in again
    assert [(each.id52, each.name, each.since_ms) for each in again.infos(lambda _: "")] == [
        (id52_of(EVE), "eve", 7000)
    ]
    assert again.find_by_name("eve") == EVE
    assert again.find_by_name("") is None


async def test_endpoints_survive_a_restart_and_go_with_their_identity(path: Path) -> None:
    blocked = BlockList(path, lambda: 7.0)
    blocked.add(EVE, "")
    blocked.add_endpoint(EVE, endpoint(1))
    blocked.add_endpoint(BOB, endpoint(2))  # nobody has blocked bob
    blocked.close()
    again = reopened(path)
    assert again.has_endpoint(endpoint(1))
    assert not again.has_endpoint(endpoint(2))
    assert again.remove(EVE)
    assert not again.has_endpoint(endpoint(1))
    assert not reopened(path).has_endpoint(endpoint(1))


async def test_released_endpoint_stays_released(path: Path) -> None:
    blocked = BlockList(path, lambda: 7.0)
    blocked.add(EVE, "")
    blocked.add_endpoint(EVE, endpoint(1))
    blocked.release_endpoint(endpoint(1))
    blocked.release_endpoint(endpoint(3))
    blocked.close()
    assert not reopened(path).has_endpoint(endpoint(1))


async def test_endpoints_of_one_identity_are_limited(path: Path) -> None:
    blocked = BlockList(path, lambda: 7.0)
    blocked.add(EVE, "")
    for number in range(2 * MAX_ENDPOINTS):
        blocked.add_endpoint(EVE, endpoint(number))
    known = [number for number in range(2 * MAX_ENDPOINTS) if blocked.has_endpoint(endpoint(number))]
    assert known == list(range(MAX_ENDPOINTS, 2 * MAX_ENDPOINTS))


async def test_peer_is_not_blocked_if_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = BlockList(tmp_path / "no-such-directory" / "blocked.json", lambda: 7.0)
    with pytest.raises(StorageFailed):
        blocked.add(EVE, "")
    assert EVE not in blocked


@pytest.mark.parametrize("content", [b"", b'{"blocked": [{"id52": "x", "name": "", "since_ms": 1}]}', b"[]"])
async def test_a_damaged_file_blocks_no_peer_and_says_so(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    blocked = BlockList(path, lambda: 7.0)
    assert "Block them again" in blocked.load()
    assert len(blocked) == 0
