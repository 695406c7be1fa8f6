"""Progress output of a transfer: bars on a terminal, lines of JSON, or plain messages."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from fastn_p2p_client.plain_text import plain

from ...console.formatting import format_count, format_size
from ...console.output import put_json, write_error_lines, write_message
from .events import (
    AlreadyPresent,
    Discovered,
    EntrySkipped,
    Event,
    FileCompleted,
    FileLost,
    FileProgress,
    FileRestarted,
    FileStarted,
    OfferChanged,
    OnEvent,
    Retrying,
    TransferSummary,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PERIOD: Final = 0.5
"""Seconds between two printed events about the bytes of one file."""
_WIDTH: Final = 40
"""Characters of a path beside a bar."""


class Ended(msgspec.Struct, frozen=True, tag="end", tag_field="event"):
    """Last line of JSON."""

    done: int
    kept: int
    skipped: int
    failed: int
    moved: int
    """Bytes transferred in this attempt."""
    seconds: float
    left_out: list[FileLost | EntrySkipped]
    """The first ``MAX_LEFT_OUT`` files that were skipped or have failed."""


@contextmanager
def progress_output(*, json: bool) -> Iterator[OnEvent]:
    """Return a callback that prints events: as JSON, or as bars if standard error is a terminal, or as text."""
    if json:
        yield _JsonLines().report
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bars() as progress:
            yield _Bars(progress).report
    else:
        yield _print_event


def print_summary(summary: TransferSummary, seconds: float, *, json: bool) -> None:
    """Print the counts, and the names of the files that were left out."""
    if json:
        end = Ended(
            summary.done,
            summary.kept,
            summary.omitted,
            len(summary.failures),
            summary.moved,
            round(seconds, 3),
            summary.left_out,
        )
        put_json(end)
        return
    if summary.left_out:
        lines = ["Left out:", *(f"  {_event_text(event)}" for event in summary.left_out)]
        more = summary.omitted + len(summary.failures) - len(summary.left_out)
        if more:
            lines.append(f"  and {more} more")
        write_error_lines("\n".join(map(plain, lines)))
    counts = [f"{format_count(summary.done, 'file')}, {format_size(summary.moved)} in {seconds:.1f} s"]
    if summary.moved and seconds > 0:
        counts[0] += f" ({format_size(round(summary.moved / seconds))}/s)"
    if summary.kept:
        counts.append(f"{summary.kept} already present")
    if summary.omitted:
        counts.append(f"{summary.omitted} skipped")
    if summary.failures:
        counts.append(f"{len(summary.failures)} failed")
    write_message("; ".join(counts))


def _print_event(event: Event) -> None:
    text = _event_text(event)
    if text:
        write_message(text)


def _event_text(event: Event) -> str:
    """Return the line that is printed for an event; usually none."""
    if isinstance(event, FileLost):
        return f"{event.path or 'transfer'}: {event.message}"
    if isinstance(event, EntrySkipped):
        return f"{event.path}: skipped: {event.reason}"
    if isinstance(event, FileRestarted):
        return f"{event.path}: the file has changed, or its partial copy is damaged; the transfer begins anew"
    if isinstance(event, Retrying):
        return f"{event.reason}; retrying"
    if isinstance(event, OfferChanged):
        return _OFFER_TEXTS[event.state].format(
            id=event.offer, files=format_count(event.files, "file"), size=format_size(event.bytes)
        )
    return ""


_OFFER_TEXTS: Final = {
    "waiting": "Offer {id} ({files}, {size}) waits until the peer accepts it: `fastn-p2p files accept {id}`",
    "accepted": "The peer has accepted offer {id} ({files}, {size}).",
    "rejected": "The peer has rejected offer {id}.",
    "finished": "Offer {id} is complete.",
}


class _JsonLines:
    """JSON on standard output, one event on each line."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def report(self, event: Event) -> None:
        if isinstance(event, FileProgress):
            now = time.monotonic()
            if now - self._last.get(event.path, 0.0) < _PERIOD:
                return
            self._last[event.path] = now
        elif isinstance(event, FileCompleted | AlreadyPresent | FileLost):
            self._last.pop(event.path, None)
        put_json(event)


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Bars:
    """Progress bars: one for each file that moves, and one for all files."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._files: dict[str, TaskID] = {}
        self._offsets: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._all = progress.add_task("all", total=0)
        self._total = 0
        self._ended = 0

    def report(self, event: Event) -> None:
        text = _event_text(event)
        if text:
            self._progress.console.print(plain(text), markup=False, highlight=False)
        if isinstance(event, OfferChanged | Discovered):
            self._total = event.bytes
        elif isinstance(event, FileStarted):
            self._begin(event)
        elif isinstance(event, FileProgress) and event.path in self._files:
            self._offsets[event.path] = event.offset
            self._progress.update(self._files[event.path], completed=event.offset)
        elif isinstance(event, FileCompleted | FileLost):
            self._end(event.path)
        elif isinstance(event, AlreadyPresent):
            self._end(event.path, count=False)
            self._ended += event.size
        self._show_all()

    def _begin(self, event: FileStarted) -> None:
        self._end(event.path, count=False)
        name = plain(event.path)
        name = name if len(name) <= _WIDTH else f"…{name[1 - _WIDTH :]}"
        self._sizes[event.path] = event.size
        self._offsets[event.path] = event.offset
        self._files[event.path] = self._progress.add_task(name, total=event.size, completed=event.offset)

    def _end(self, path: str, *, count: bool = True) -> None:
        task = self._files.pop(path, None)
        if task is not None:
            self._progress.remove_task(task)
            del self._offsets[path]
        if count:
            self._ended += self._sizes.pop(path, 0)

    def _show_all(self) -> None:
        moving = sum(self._offsets.values())
        self._progress.update(self._all, total=self._total, completed=self._ended + moving)
