"""Sessions of one connection, without QUIC: a stub opens numbered streams."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.connections import session_streams
from fastn_p2p_actors.network.connections.connection_sessions import ConnectionSessions
from fastn_p2p_actors.network.wire import messages as wire


class StubQuic:
    """Opens streams in the order of their numbers. Each step takes a random number of turns of the event loop."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.opened = 0

    async def open_bi(self) -> Any:
        await self._a_moment()
        number, self.opened = self.opened, self.opened + 1

        async def id() -> str:
            await self._a_moment()
            return f"client bidirectional stream {number}"

        return SimpleNamespace(send=lambda: SimpleNamespace(id=id), recv=lambda: None)

    async def _a_moment(self) -> None:
        for _ in range(self._random.choice([0, 0, 0, 1, 5])):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_stream_with_a_lower_number_than_a_used_one_stays_unannounced(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUIC opens all lower streams at the peer with a stream (RFC 9000, section 2.1), and the peer disconnects a daemon
    that does not announce what it opens."""
    monkeypatch.setattr(session_streams, "_SPARE_AFTER", 0)
    random = Random(seed)
    announced: list[int] = []

    def send(message: wire.WireMessage) -> None:
        assert isinstance(message, wire.SessionStream)
        announced.append(message.stream // 4)

    quic = StubQuic(random)
    sessions = ConnectionSessions(cast(Any, SimpleNamespace(send=send, closed=False, name="stub")), cast(Any, quic))
    for wave in range(5):
        opening = [asyncio.ensure_future(sessions.open_stream(number)) for number in range(random.randint(1, 8))]
        used = [stream.number for stream in await asyncio.gather(*opening)]
        assert len(set(used)) == len(used), wave
        for _ in range(random.randint(0, 20)):
            await asyncio.sleep(0)
        assert sorted(announced) == list(range(len(announced))), wave
