"""Running event loop that has only a clock, which goes where a test sets it."""

from __future__ import annotations

import asyncio

import pytest

__all__ = ["LoopClock", "clock"]


class LoopClock:
    """Stands in for the running loop of code that asks it for nothing but the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    clock = LoopClock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock
