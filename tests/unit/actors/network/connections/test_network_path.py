"""Path of a connection: the one that iroh has selected, or the one that brings what the peer sends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections.network_path import CurrentPath, NetworkPath

DIRECT, MOVED, RELAY = "192.0.2.1:7", "192.0.2.9:7", "https://relay.example/"


class Paths:
    """Connection of iroh; ``received`` has the datagrams of each path, by its address."""

    def __init__(self) -> None:
        self.received: dict[str, int] = {}
        self.selected = ""

    def paths(self) -> list[Any]:
        return [
            SimpleNamespace(
                id=address,
                remote_addr=address,
                is_selected=address == self.selected,
                is_relay=address == RELAY,
                is_ip=address != RELAY,
                rtt_ms=3,
                stats=SimpleNamespace(udp_rx_datagrams=count),
            )
            for address, count in self.received.items()
        ]


@pytest.fixture
async def raw() -> Paths:
    return Paths()


def current(raw: Paths) -> CurrentPath:
    return CurrentPath(cast(Any, raw), asyncio.get_running_loop())


async def test_the_selected_path_is_used(raw: Paths) -> None:
    raw.received, raw.selected = {DIRECT: 5, RELAY: 50}, DIRECT
    assert current(raw).now() == NetworkPath("direct", DIRECT, 3)
    raw.selected = RELAY
    assert current(raw).now() == NetworkPath("relayed", RELAY, 3)


async def test_without_a_path_nothing_is_known(raw: Paths) -> None:
    assert current(raw).now() == NetworkPath("unknown", "", None)


@pytest.mark.parametrize("only", [DIRECT, RELAY])
async def test_the_only_path_is_used_although_it_is_not_selected(raw: Paths, only: str) -> None:
    raw.received = {only: 0}
    assert current(raw).now().address == only


async def test_without_a_selected_path_the_one_that_brings_packets_is_used(raw: Paths) -> None:
    """As after a move: iroh has selected a path that this connection does not have."""
    path = current(raw)
    raw.received, raw.selected = {DIRECT: 100, RELAY: 3}, DIRECT
    assert path.now().address == DIRECT
    raw.received, raw.selected = {DIRECT: 100, MOVED: 0, RELAY: 9}, MOVED + "0"
    assert path.now().address == RELAY
    assert path.now().address == RELAY, "nothing has come since"
    raw.received[MOVED] = 4
    assert path.now().address == MOVED


async def test_datagrams_are_counted_by_path(raw: Paths) -> None:
    raw.received, raw.selected = {DIRECT: 7, RELAY: 3}, RELAY
    assert current(raw).received_datagrams(DIRECT) == 7
    assert current(raw).received_datagrams(MOVED) == 0
