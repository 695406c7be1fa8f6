"""Opening in a thread what must be closed, also when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["open_in_thread"]


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable | None)


async def open_in_thread(make: Callable[..., C], *arguments: Any) -> C:
    """What ``make`` returns, called in a thread. Cancelled meanwhile, it is closed as soon as it is there."""
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
