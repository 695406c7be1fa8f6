"""Audit log: an append-only file of what the vault has signed, and of the events that gateway and network report.

Only the vault writes it. It has the file in its own directory, and it knows the role of each reporter by its CURVE key,
so no other process can claim a signature, or an event of another role. A thread writes, so that a slow disk delays no
signature. Lines are sampled as those of the other logs, and lost ones are counted: see ``SampledFileHandler``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import msgspec

from ..runtime.sampled_log import SampledFileHandler

FILE_BYTES: Final = 4 * 1024 * 1024
FILES_KEPT: Final = 4
"""Old files beside the one that is written: 20 MB in all."""
MAX_QUEUED: Final = 4096
"""Lines that wait for the disk. Further ones are lost, and counted."""
_RESERVED: Final = frozenset({"time", "actor", "event"})


class AuditLog:
    """Audit log of a vault.

    Args:
        path: the file.
        clock: return Unix time.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._handler = _AuditFile(path, clock)
        self._listener = QueueListener(self._queue, self._handler)
        self._listener.start()

    def close(self) -> None:
        """Write the lines that wait."""
        self._listener.stop()
        self._handler.close()

    def record(self, actor: str, event: str, fields: Mapping[str, object]) -> None:
        """Add one line. Never blocks and never raises: a line that cannot be written is counted.

        Args:
            actor: process that has done it, as the vault knows it.
            event: kind of the event.
            fields: what else is known; the names of the other arguments are left out.
        """
        own = {name: value for name, value in fields.items() if name not in _RESERVED}
        if self._queue.qsize() >= MAX_QUEUED:
            self._handler.dropped += 1
            return
        line = _line(self._clock(), actor, event, own)
        self._queue.put(logging.LogRecord(f"{actor}: {event}", logging.INFO, "", 0, line, None, None))


class _AuditFile(SampledFileHandler):
    """File of the audit log. Each actor's kind of event has a share of its own, so no flood of one hides the others.

    Attributes:
        dropped: number of lines that found no place in the queue. Only the thread of the vault's event loop changes it.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        super().__init__(path, file_bytes=FILE_BYTES, kept=FILES_KEPT)
        self._clock = clock
        self._lost = 0
        """Lines that could not be written since the last line that counts them."""
        self._counted = 0
        """Part of ``dropped`` that such a line has counted."""
        self.dropped = 0

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg)

    def left_out_line(self, kind: str, level: int, count: int, seconds: int, words: str) -> str:
        return _line(self._clock(), "vault", "left-out", {"of": kind, "count": count, "seconds": seconds})

    def emit(self, record: logging.LogRecord) -> None:
        dropped = self.dropped
        lost = self._lost + dropped - self._counted
        if lost:
            try:
                self._write(_line(self._clock(), "vault", "lost", {"count": lost}))
            except OSError:
                self._lost += 1
                return
            self._lost, self._counted = 0, dropped
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self._lost += 1


def _line(now: float, actor: str, event: str, fields: Mapping[str, object]) -> str:
    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"time": stamp, "actor": actor, "event": event, **fields}).decode()
