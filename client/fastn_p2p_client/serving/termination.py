"""Ctrl-C and SIGTERM of programs that serve: finish what is in flight, and end without a traceback."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..affinity import running_loop
from ..errors import UsedElsewhere

__all__ = ["run_until_signal", "signals_handled"]


def run_until_signal(serve: Callable[[], Coroutine[Any, Any, None]], close: Callable[[], None]) -> None:
    """Run ``serve`` in an event loop of its own, and ``close`` at the first signal; the second one cancels it.

    In a thread other than the main one there are no signals: it ends as ``serve`` does.

    Raises:
        UsedElsewhere: an event loop runs in this thread already.
    """
    if running_loop() is not None:
        raise UsedElsewhere(what="`run`", reason="an event loop runs here already. Use `await server.serve()`")
    asyncio.run(_serve_until_signal(serve, close))


async def _serve_until_signal(serve: Callable[[], Coroutine[Any, Any, None]], close: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve())
    closing = False

    def on_signal() -> None:
        nonlocal closing
        if closing:
            serving.cancel()
        closing = True
        close()

    signals = _signals()
    with suppress(ValueError, RuntimeError):  # this is not the main thread
        for each in signals:
            loop.add_signal_handler(each, on_signal)
    try:
        await asyncio.wait([serving])
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
    if not serving.cancelled():
        serving.result()


def _signals() -> list[signal.Signals]:
    """Those that end a program. One that is ignored, as Ctrl-C is by what a shell runs in the background, stays so."""
    return [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def signals_handled(handler: Callable[[], None]) -> Iterator[None]:
    """Inside, both signals call ``handler`` in the main thread. Elsewhere than there, nothing is changed."""
    signals = _signals()
    try:
        before = [signal.signal(each, lambda number, frame: handler()) for each in signals]
    except ValueError:  # this is not the main thread
        yield
        return
    try:
        yield
    finally:
        for each, old in zip(signals, before, strict=True):
            signal.signal(each, old)
