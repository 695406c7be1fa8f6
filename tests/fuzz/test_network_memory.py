"""Hostile peers that make the network process keep what they send: it stays small, and honest peers do not notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.world import new_world

from . import stream_attacks as attacks
from .attackers import Attack
from .siege import Victim, attack, besieged


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with new_world() as world:
        yield Victim(world)


@pytest.mark.parametrize(
    "what",
    [
        attacks.streams_before_hello,
        attacks.streams_after_hello,
        attacks.channel_never_finished,
        attacks.bulk_streams_never_finished,
        attacks.streams_opened_and_reset,
        attacks.datagrams,
        attacks.short_connections,
        attacks.replies_never_read,
        attacks.sessions_never_read,
    ],
    ids=lambda what: what.__name__,
)
def test_memory_stays_bounded(victim: Victim, what: Attack) -> None:
    with besieged(victim) as siege, attack(victim, what, attackers=8) as report:
        siege.calls(60)
    assert report.connections
