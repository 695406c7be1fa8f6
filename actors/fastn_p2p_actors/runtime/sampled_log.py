"""Rotated log file that keeps its last day even during a flood of lines.

Problem: strangers and local programs can cause log lines as fast as they send. Rotation keeps the disk from filling,
but drops the lines from before the flood, which the owner needs. Idea: limit the bytes written by token buckets, so
that any 24 hours write less than the rotated files hold. A kind of line is one logging call together with its logger.
Each kind has a small bucket of its own. When that is empty, it takes from a bucket that all kinds share. So one kind in
a flood takes nothing that another kind is sure of. Lines that do not fit are counted, and a line reports the count at
the end of a window: "… and 12,412 more like it". Cost: a dictionary lookup per line, before the line is formatted. Not
covered: standard error; and more than 64 kinds that flood at once, because further kinds share one bucket.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, TextIO, TypeAlias

from fastn_p2p_client.retry import Backoff

from .rate_limiter import Rate, TokenBucket

DAY: Final = 24 * 3600.0
"""Seconds that the files reach back, however much is logged."""
MAX_LINE: Final = 16 * 1024
"""Characters of one record with its traceback; the rest is cut off."""
MAX_KINDS: Final = 64
"""Kinds of lines with a bucket of their own; further kinds share one bucket."""
FIRST_WINDOW: Final = 60.0
"""Seconds until left-out lines are counted in the file for the first time. Doubled while the flood lasts."""
LONGEST_WINDOW: Final = 3600.0
"""Seconds of the longest window."""

# Shares of the bytes that the rotated files hold. Together 0.93; the rest is for the counts of left-out lines.
_OWN_BURST: Final = 0.1
"""Share of the full own buckets of all kinds together."""
_OWN_PER_DAY: Final = 0.3
_SHARED_BURST: Final = 0.13
_SHARED_PER_DAY: Final = 0.4

_Kind: TypeAlias = tuple[str, str, int]
"""Logger, file and line of the code. Not the message, because code that formats it beforehand makes a new one each
time."""
_OTHER: Final[_Kind] = ("", "", 0)


class _Sample:
    """Written and left-out lines of one kind."""

    __slots__ = ("bucket", "left_out", "level", "logger", "since", "words")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.left_out = 0
        self.since = 0.0
        self.logger = ""
        self.level = logging.INFO
        self.words = ""


def _call_later(seconds: float, work: Callable[[], None]) -> object:
    """Call ``work`` on a thread. Lines are logged on any thread, also in processes whose event loop does not run."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


class SampledFileHandler(RotatingFileHandler):
    """Log handler that samples lines during a flood.

    Args:
        path: the log file.
        file_bytes: bytes at which the file is rotated.
        kept: old files that are kept.
        now: return monotonic seconds.
        later: call a function after so many seconds.

    Attributes:
        mirror: gets the level and the text, without time, of each line that is written; None for nobody.
        without_time: return a formatted line without its time.
    """

    def __init__(
        self,
        path: Path,
        *,
        file_bytes: int,
        kept: int,
        now: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] = _call_later,
    ) -> None:
        super().__init__(path, maxBytes=file_bytes, backupCount=kept, encoding="utf-8", delay=True)
        self._now = now
        self._later = later
        self.mirror: Callable[[int, str], None] | None = None
        self.without_time: Callable[[str], str] = lambda line: line.partition(" ")[2]
        total = file_bytes * kept
        self._own = Rate(total * _OWN_PER_DAY / MAX_KINDS / DAY, total * _OWN_BURST / MAX_KINDS)
        self._shared = TokenBucket(Rate(total * _SHARED_PER_DAY / DAY, total * _SHARED_BURST), now())
        self._shared.spend(now(), min(_written_lately(path, kept), total * _SHARED_BURST))
        self._samples: OrderedDict[_Kind, _Sample] = OrderedDict()
        self._windows = Backoff(FIRST_WINDOW, LONGEST_WINDOW, jitter=0)
        self._window = self._windows.next_delay()
        self._timed = False
        self._closing = False
        self._is_confined = False

    def confine(self) -> None:
        """Prepare for a sandbox in which no file can be made: from now on a full file loses its older half.

        A file that is more than half full is rotated now, while that is possible.
        """
        with suppress(OSError):
            if self._opened().seek(0, os.SEEK_END) > self.maxBytes // 2:
                self.doRollover()
            self._opened()
        self._is_confined = True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            now = self._now()
            sample = self._sample((record.name, record.pathname, record.lineno), now)
            own = sample.bucket.left(now) > 0
            if not own and self._shared.left(now) <= 0:
                self._count_skipped(sample, record, now)
                return
            line = self.format(record)
            if len(line) > MAX_LINE:
                line = f"{line[:MAX_LINE]} … ({len(line) - MAX_LINE:,} more characters)"
            size = self._write(line)
            if self.mirror is not None:
                self.mirror(record.levelno, self.without_time(line))
            if own:
                sample.bucket.spend(now, size)
            else:
                self._shared.spend(now, size)
        except Exception:  # like logging's own handlers: a line that cannot be written costs nothing else
            self.handleError(record)

    def close(self) -> None:
        """Write the counts of left-out lines, and close the file."""
        with self.lock or threading.RLock():
            self._closing = True
            self._count_left_out()
        super().close()

    def _sample(self, kind: _Kind, now: float) -> _Sample:
        found = self._samples.get(kind)
        if found is not None:
            self._samples.move_to_end(kind)
            return found
        if len(self._samples) >= MAX_KINDS:
            self._remove_full_kinds(now)
        if len(self._samples) >= MAX_KINDS:
            kind = _OTHER
            if kind in self._samples:
                return self._samples[kind]
        made = self._samples[kind] = _Sample(TokenBucket(self._own, now))
        return made

    def _remove_full_kinds(self, now: float) -> None:
        """Forget kinds whose bucket is full: they equal new ones."""
        for kind in [kind for kind, each in self._samples.items() if not each.left_out and each.bucket.is_full(now)]:
            del self._samples[kind]

    def _count_skipped(self, sample: _Sample, record: logging.LogRecord, now: float) -> None:
        if not sample.left_out:
            sample.since = now
        sample.left_out += 1
        sample.logger, sample.level = record.name, record.levelno
        sample.words = str(record.msg)[:200]
        if not self._timed and not self._closing:
            self._later(self._window, self._end_window)
            self._timed = True  # set after the call, which raises if no thread can be started

    def _end_window(self) -> None:
        with self.lock or threading.RLock():
            self._timed = False
            if self._closing:
                return
            lasting = self._count_left_out()
            if not lasting:
                self._windows.reset()
            self._window = self._windows.next_delay()
            if lasting:  # check again whether the flood goes on
                self._later(self._window, self._end_window)
                self._timed = True

    def _count_left_out(self) -> bool:
        """Write the number of left-out lines of each kind. Return whether there were any."""
        lasting = False
        for sample in self._samples.values():
            if not sample.left_out:
                continue
            lasting = True
            count, sample.left_out = sample.left_out, 0
            seconds = max(1, round(self._now() - sample.since))
            line = self.left_out_line(sample.logger, sample.level, count, seconds, sample.words)
            self._write(line)
            if self.mirror is not None:
                self.mirror(sample.level, self.without_time(line))
        return lasting

    def left_out_line(self, kind: str, level: int, count: int, seconds: int, words: str) -> str:
        """Return the line that counts left-out lines.

        Args:
            kind: logger of the lines.
            words: the last of them, not formatted.
        """
        text = f"… and {count:,} more like it in {seconds} s: {words}"
        return self.format(logging.LogRecord(kind, level, "", 0, text, None, None))

    def _write(self, line: str) -> int:
        """Write a formatted record, in a new file if this one is full. Return its size in bytes."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._opened().seek(0, os.SEEK_END) + len(data) > self.maxBytes:
            if self._is_confined:
                self._halve()
            else:
                self.doRollover()
        file = self._opened()
        file.write(data.decode())
        file.flush()
        return len(data)

    def _halve(self) -> None:
        """Keep the newer half of the file."""
        path = Path(self.baseFilename)
        with path.open("r+b") as file:
            file.seek(-(self.maxBytes // 2), os.SEEK_END)
            kept = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(kept)
            file.truncate()

    def _opened(self) -> TextIO:
        if self.stream is None:
            self.stream = self._open()
        return self.stream


def _written_lately(path: Path, kept: int) -> int:
    """Return the bytes of files written to within a day, so that frequent restarts do not begin a new day."""
    oldest = time.time() - DAY
    size = 0
    for file in (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1))):
        try:
            found = file.stat()
        except OSError:
            continue
        if found.st_mtime > oldest:
            size += found.st_size
    return size
