"""What people and scripts see of a transfer: bars on a terminal, lines of JSON, or only what is worth a word."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from fastn_p2p_client.plain_text import plain

from ...console.formatting import format_count, format_size
from ...console.output import put_json, write_message
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
"""Seconds between two events about the bytes of one file."""
_WIDTH: Final = 40
"""Characters of a path beside a bar."""


class Ended(msgspec.Struct, frozen=True, tag="end", tag_field="event"):
    """The last line of JSON."""

    done: int
    kept: int
    skipped: int
    failed: int
    moved: int
    """Bytes in this attempt."""
    seconds: float
    left_out: list[FileLost | EntrySkipped]
    """The first ``MAX_LEFT_OUT`` of what was skipped or has failed."""


@contextmanager
def progress_output(*, json: bool) -> Iterator[OnEvent]:
    """Something to give events to. Bars are shown when standard error is a terminal."""
    if json:
        yield _Lines().report
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bars() as progress:
            yield _Bars(progress).report
    else:
        yield _tell


def print_summary(tally: TransferSummary, seconds: float, *, json: bool) -> None:
    """Print the counts, and everything that was left out, by name."""
    if json:
        end = Ended(
            tally.done,
            tally.kept,
            tally.omitted,
            len(tally.failures),
            tally.moved,
            round(seconds, 3),
            tally.left_out,
        )
        put_json(end)
        return
    if tally.left_out:
        write_message("left out:")
        for event in tally.left_out:
            write_message(f"  {_words(event)}")
        more = tally.omitted + len(tally.failures) - len(tally.left_out)
        if more:
            write_message(f"  and {more} more, which are named above")
    words = [f"{format_count(tally.done, 'file')}, {format_size(tally.moved)} in {seconds:.1f} s"]
    if tally.moved and seconds > 0:
        words[0] += f" ({format_size(round(tally.moved / seconds))}/s)"
    if tally.kept:
        words.append(f"{tally.kept} were there already")
    if tally.omitted:
        words.append(f"{tally.omitted} skipped")
    if tally.failures:
        words.append(f"{len(tally.failures)} failed")
    write_message("; ".join(words))


def _tell(event: Event) -> None:
    words = _words(event)
    if words:
        write_message(words)


def _words(event: Event) -> str:
    """What is said about it beside all bars; mostly nothing."""
    if isinstance(event, FileLost):
        return f"{event.path or 'transfer'}: {event.message}"
    if isinstance(event, EntrySkipped):
        return f"{event.path}: skipped: {event.reason}"
    if isinstance(event, FileRestarted):
        return f"{event.path}: it is another file by now, or what is here of it is damaged; it begins anew"
    if isinstance(event, Retrying):
        return f"{event.reason}; trying again"
    if isinstance(event, OfferChanged):
        return _OFFER_WORDS[event.state].format(
            id=event.offer, files=format_count(event.files, "file"), size=format_size(event.bytes)
        )
    return ""


_OFFER_WORDS: Final = {
    "waiting": "offer {id} ({files}, {size}) waits for the other side: `fastn-p2p files accept {id}`",
    "accepted": "offer {id} ({files}, {size}) is accepted",
    "rejected": "offer {id} is rejected",
    "finished": "offer {id} is complete",
}


class _Lines:
    """JSON on standard output."""

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
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Bars:
    """One for each file that moves, and one for all of them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._files: dict[str, TaskID] = {}
        self._offsets: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._all = progress.add_task("all", total=0)
        self._total = 0
        self._ended = 0

    def report(self, event: Event) -> None:
        words = _words(event)
        if words:
            self._progress.console.print(plain(words), markup=False, highlight=False)
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
