"""Tasks that run at the same time and end together, and objects that a thread opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable | None)


async def run_all(*parts: Coroutine[Any, Any, object]) -> None:
    """Run the coroutines at the same time until all have returned. When one raises, cancel the others.

    Raises:
        BaseException: the first error that one of them raised.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def open_in_thread(make: Callable[..., C], *arguments: Any) -> C:
    """Return ``make(*arguments)``, called in a thread. If the caller is cancelled meanwhile, close the result."""
    making = asyncio.ensure_future(asyncio.to_thread(make, *arguments))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close)
        raise


def _close(made: asyncio.Future[C]) -> None:
    if not made.cancelled() and made.exception() is None:
        result = made.result()
        if result is not None:
            result.close()
