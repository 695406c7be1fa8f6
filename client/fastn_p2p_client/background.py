"""The event loop behind blocking twins: in a thread of its own, started at the first use."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

__all__ = ["background_loop", "run", "submit"]

T = TypeVar("T")

_lock: Final = threading.Lock()
_loops: Final[dict[int, asyncio.AbstractEventLoop]] = {}


def background_loop() -> asyncio.AbstractEventLoop:
    """This process's; a child that was forked gets its own."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="fastn-p2p", daemon=True).start()
        return loop


def submit(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None) -> Future[T]:
    """Starts it on the loop, or on another one. Cancelling what is returned cancels it."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop or background_loop())


def run(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None) -> T:
    """Its result, or what it raises; it is cancelled when whoever waits is interrupted."""
    future = submit(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
