"""The tree on paper: ``run/tree.json``, for whoever wants to know about the processes when nothing answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["ProcessFile"]

COALESCE: Final = 0.05
"""Seconds in which further changes join one write."""

log = logging.getLogger("supervisor")


class ProcessFile:
    """Keeps the file up to date: each write is atomic, many changes at once make one write.

    A disk that does not take it costs the file's freshness, and nothing else.
    """

    def __init__(self, path: Path, content: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._temporary = path.with_suffix(".tmp")
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._pending: asyncio.TimerHandle | None = None
        self._failing = False
        self._removed = False

    def changed(self) -> None:
        """The content is another one now."""
        if self._pending is None and not self._removed:
            self._pending = self._loop.call_later(COALESCE, self.write)

    def write(self) -> None:
        """Writes now."""
        self._cancel()
        try:
            self._temporary.write_bytes(msgspec.json.encode(self._content()))
            self._temporary.replace(self._path)
        except OSError as error:
            if not self._failing:
                log.warning("%s cannot be written: %s", self._path, error.strerror)
            self._failing = True
        else:
            self._failing = False

    def remove(self) -> None:
        """Removes the file; later changes are not written."""
        self._cancel()
        self._removed = True
        self._temporary.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
