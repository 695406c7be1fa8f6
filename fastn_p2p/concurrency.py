"""Work that is done at once, and ends together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["run_all"]


async def run_all(*parts: Coroutine[Any, Any, object]) -> None:
    """Runs all of them at once until all have returned, or one raises: the others are cancelled then.

    Raises:
        BaseException: what the first one raised.
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
