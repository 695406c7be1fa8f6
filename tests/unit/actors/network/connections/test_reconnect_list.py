"""Reconnect list: connections are written to disk, and the event loop does not wait for the disk."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections.reconnect_list import ReconnectList
from tests.support.event_loop import run_pending
from tests.support.two_daemons import until


class Connection:
    """Stub of a connection that counts reads of its addresses."""

    def __init__(self, number: int, *, known: bool = False) -> None:
        self.endpoint = bytes([number]) * 32
        self.introductions = SimpleNamespace(has_known=known)
        self.used_at = float(number)
        self.asked = 0

    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        self.asked += 1
        return ("127.0.0.1:1",), ()


def list_of(path: Path, connections: list[Connection]) -> ReconnectList:
    return ReconnectList(path, cast(Any, SimpleNamespace(all=lambda: connections)))


async def test_strangers_that_come_and_go_cost_one_look_each(tmp_path: Path) -> None:
    path = tmp_path / "neighbours.json"
    stranger, friend = Connection(1), Connection(2, known=True)
    connections = [stranger, friend]
    remembered = list_of(path, connections)
    for number in range(3, 6):
        connections.append(Connection(number))
        remembered.changed()
        await until(
            lambda: path.exists() and connections[-1].endpoint.hex().upper() in path.read_text(),
            "the list is written",
        )
    assert stranger.asked == 1
    assert friend.asked == 3, "a known peer may be reached in another way by now"
    remembered.close()
    assert not path.exists()


async def test_a_slow_disk_does_not_block_and_nothing_is_written_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "neighbours.json"
    begun, go_on = threading.Event(), threading.Event()
    replace = Path.replace

    def slowly(self: Path, target: Path) -> Path:
        begun.set()
        assert go_on.wait(60)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", slowly)
    connections = [Connection(1)]
    remembered = list_of(path, connections)
    remembered.changed()
    await until(begun.is_set, "the write has begun")
    connections.append(Connection(2))
    remembered.changed()
    await run_pending()
    assert connections[1].asked == 0, "one write at a time"
    go_on.set()
    await until(
        lambda: path.exists() and connections[1].endpoint.hex().upper() in path.read_text(), "the list is written"
    )
    remembered.changed()
    remembered.close()
    await run_pending()
    assert not path.exists()
