"""The history for an event loop: one thread of its own does all reading and writing, in the order of the asking."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from fastn_p2p_client.errors import StorageDamaged, StorageFailed

from .config import ChatConfig
from .message_store import MessageStore

P = ParamSpec("P")
T = TypeVar("T")


class Ledger:
    """What is asked first is answered first."""

    def __init__(self, path: Path, settings: ChatConfig) -> None:
        self._path = path
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chat")
        self._history: MessageStore | None = None

    async def open(self) -> None:
        """
        Raises:
            StorageDamaged, StorageFailed: the file is not what it should be, or cannot be read or written.
        """
        self._history = await self._run(lambda: MessageStore(self._path, self._settings))

    async def do(self, action: Callable[Concatenate[MessageStore, P], T], *arguments: P.args, **options: P.kwargs) -> T:
        """``await ledger.do(History.recall, peer, ...)``. What has begun is finished, whoever cancels.

        Raises:
            StorageDamaged, StorageFailed: the disk is full, for instance.
            ApplicationError: as the method does.
        """
        history = self._history
        if history is None:
            raise RuntimeError("the history is not open")
        return await self._run(lambda: action(history, *arguments, **options))

    async def _run(self, action: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, action)
        except sqlite3.DatabaseError as error:
            damaged = error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            kind = StorageDamaged if damaged else StorageFailed
            raise kind(path=str(self._path), reason=str(error)) from error

    def reload(self, settings: ChatConfig) -> None:
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
