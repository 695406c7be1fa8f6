"""Ctrl-C and SIGTERM in programs that serve: finish requests in flight, and end without a traceback."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..affinity import running_loop
from ..errors import UsedElsewhere


def run_until_signal(serve: Callable[[], Coroutine[Any, Any, None]], close: Callable[[], None]) -> None:
    """Run ``serve`` in an event loop of its own. Call ``close`` at the first signal, and cancel at the second.

    In a thread other than the main one signals have no effect: it returns when ``serve`` does.

    Raises:
        UsedElsewhere: an event loop runs in this thread already.
    """
    if running_loop() is not None:
        raise UsedElsewhere(what="`run`", reason="an event loop runs here already. Use `await server.serve()`")
    asyncio.run(_serve_until_signal(serve, close))


async def _serve_until_signal(serve: Callable[[], Coroutine[Any, Any, None]], close: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve())
    is_closing = False

    def on_signal() -> None:
        nonlocal is_closing
        if is_closing:
            serving.cancel()
        is_closing = True
        close()

    signals = _termination_signals()
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


def _termination_signals() -> list[signal.Signals]:
    """Return the signals that end a program, without ignored ones: a shell's background job ignores Ctrl-C."""
    return [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def signals_handled(handler: Callable[[], None]) -> Iterator[None]:
    """Call ``handler`` at both signals while the context is open. In a thread other than the main one, do nothing."""
    signals = _termination_signals()
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
