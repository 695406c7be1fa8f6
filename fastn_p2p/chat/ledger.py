"""The history for an event loop: one thread of its own does all reading and writing, in the order of the asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from .history import History
from .settings import Settings

__all__ = ["Ledger"]

P = ParamSpec("P")
T = TypeVar("T")


class Ledger:
    """What is asked first is answered first."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chat")
        self._history: History | None = None

    async def open(self) -> None:
        """Raises what ``History`` does."""
        loop = asyncio.get_running_loop()
        self._history = await loop.run_in_executor(self._thread, History, self._path, self._settings)

    async def do(self, action: Callable[Concatenate[History, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """``await ledger.do(History.recall, peer, ...)``. Raises what the method does.

        What has begun is finished, whoever cancels.
        """
        history = self._history
        if history is None:
            raise RuntimeError("the history is not open")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: action(history, *arguments, **options))

    def reload(self, settings: Settings) -> None:
        """The limits are others from now on."""
        self._settings = settings
        if self._history is not None:
            self._history.settings = settings

    async def close(self) -> None:
        """After what was asked before."""
        history, self._history = self._history, None
        if history is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, history.close)
        self._thread.shutdown(wait=False)
