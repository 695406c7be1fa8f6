"""The event loop behind the blocking API, in a thread of its own that starts at the first use.

A forked child has neither thread nor loop of its parent. It gets its own at its first use.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeVar

from .affinity import running_loop
from .errors import UsedElsewhere

T = TypeVar("T")


class Closable(Protocol):
    """An async client that can be closed: ``Client`` or ``MailClient``."""

    def close(self) -> None: ...


SIGNALS_AFTER: Final = 1.0
"""Seconds after which a waiting thread looks for signals."""
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_inherited: Final[list[asyncio.AbstractEventLoop]] = []
"""Event loops of the parent processes. They are kept, because freeing one would close sockets that it shares."""


def background_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process's thread; start it at the first use."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="fastn-p2p", daemon=True).start()
        return _loop


def _after_fork() -> None:
    global _lock, _loop
    _lock = threading.Lock()
    if _loop is not None:
        _inherited.append(_loop)
    _loop = None


os.register_at_fork(after_in_child=_after_fork)


def submit(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None) -> Future[T]:
    """Start the coroutine on the background loop or on ``loop``. Cancelling the returned future cancels it.

    Raises:
        UsedElsewhere: the loop has ended.
    """
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop or background_loop())
    except RuntimeError:
        coroutine.close()
        raise UsedElsewhere(what="this object", reason="the event loop that it belongs to has ended") from None


def wait_for(future: Future[T]) -> T:
    """Wait for the result, and notice Ctrl-C within a second.

    The system may deliver a signal to any thread. Python handles it in the main thread, but that one sleeps on if
    another thread was interrupted. So it wakes up now and then.
    """
    while True:
        try:
            return future.result(SIGNALS_AFTER)
        except TimeoutError:
            if future.done():  # the result, or an error that is a TimeoutError itself
                return future.result()


def run_blocking(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None = None) -> T:
    """Run the coroutine on the background loop or on ``loop``, and return its result.

    The coroutine is cancelled if the waiting thread is interrupted.

    Raises:
        UsedElsewhere: the loop has ended, or it runs in this thread, which would wait for itself.
        Exception: the exceptions of the coroutine.
    """
    here = running_loop()
    if here is not None and here is (loop or _loop):
        coroutine.close()
        reason = "it would block the event loop that it waits for. Use the async API in `async def` functions"
        raise UsedElsewhere(what="a blocking function", reason=reason)
    future = submit(coroutine, loop)
    try:
        return wait_for(future)
    except BaseException:
        future.cancel()
        raise


def close(client: Closable) -> None:
    """Close an async client on the background loop, and wait until it is closed."""

    async def close_client() -> None:
        client.close()

    run_blocking(close_client())
