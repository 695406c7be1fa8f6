"""Pause in the reading of a stranger whose requests are above a limit."""

from __future__ import annotations

from fastn_p2p_actors.network.connections.overload_pause import FIRST_PAUSE, LONGEST_PAUSE, OverloadPause


class Reader:
    """Reader that waits before each read, as a connection does."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.pause = OverloadPause(self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def read(self, overloads: int) -> None:
        """Read once; so many requests are above a limit."""
        if self.pause.seconds:
            await self.pause.wait()
        for _ in range(overloads):
            self.pause.on_overload()


async def test_reads_without_a_pause_while_nothing_is_above_a_limit() -> None:
    reader = Reader()
    for _ in range(3):
        await reader.read(0)
    assert reader.pauses == []


async def test_many_requests_of_one_read_cause_one_pause() -> None:
    reader = Reader()
    await reader.read(1000)
    await reader.read(0)
    await reader.read(0)
    assert reader.pauses == [FIRST_PAUSE]
    assert reader.pause.seconds == 0


async def test_each_read_in_a_row_that_is_above_a_limit_doubles_the_pause() -> None:
    reader = Reader()
    for _ in range(12):
        await reader.read(5)
    assert reader.pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert reader.pauses[-1] == LONGEST_PAUSE


async def test_reads_within_the_limits_halve_the_next_pause() -> None:
    reader = Reader()
    for _ in range(4):
        await reader.read(1)
    for overloads in (0, 0, 0, 1, 0):
        await reader.read(overloads)
    assert reader.pauses[-1] < 8 * FIRST_PAUSE
