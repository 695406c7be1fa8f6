"""File with the state of every process: ``run/processes.json``. It can be read when no process answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

COALESCE: Final = 0.05
"""Seconds in which further changes join one write."""

log = logging.getLogger("supervisor")


class ProcessFile:
    """Process file, kept up to date. Each write is atomic; many changes at once cause one write.

    If it cannot be written, the file is out of date, and nothing else happens.
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
        """Schedule a write: the content has changed."""
        if self._pending is None and not self._removed:
            self._pending = self._loop.call_later(COALESCE, self.write)

    def flush(self) -> None:
        """Write the file now if a write is scheduled."""
        if self._pending is not None:
            self.write()

    def write(self) -> None:
        """Write the file now."""
        self._cancel()
        try:
            self._temporary.write_bytes(msgspec.json.encode(self._content()))
            self._temporary.replace(self._path)
        except OSError as error:
            if not self._failing:
                log.warning("%s cannot be written, so it may be out of date: %s", self._path, error.strerror)
            self._failing = True
        else:
            self._failing = False

    def remove(self) -> None:
        """Remove the file. Later changes are not written."""
        self._cancel()
        self._removed = True
        self._temporary.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
