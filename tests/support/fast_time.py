"""An event loop whose time passes at once: it jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_fast"]

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Selector that moves the time of its loop by the seconds for which it should wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "the loop waits for something that no timer brings"
        self.now += max(0.0, timeout)
        return super().select(0)


class _FastLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._fast = _Selector()
        super().__init__(self._fast)

    def time(self) -> float:
        return self._fast.now


def run_fast(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for timers only: its time begins at 0, and hours take milliseconds."""
    with asyncio.Runner(loop_factory=_FastLoop) as runner:
        return runner.run(work)
