"""What became of a transfer's files."""

from __future__ import annotations

from typing import Final

from .events import AlreadyPresent, EntrySkipped, Event, FileCompleted, FileLost, FileProgress, FileStarted, OnEvent

__all__ = ["MAX_LEFT_OUT", "TransferSummary"]

MAX_LEFT_OUT: Final = 1000
"""Names of things that were left out which are kept for the end; a peer decides how many there are."""


class TransferSummary:
    """Counts events on their way to whoever watches.

    Attributes:
        done: files that have arrived in this attempt.
        kept: files that were there already.
        omitted: what is not transferred at all: links, devices, unsafe names.
        moved: bytes that have moved in this attempt.
        failures: file and reason, of those that could not be transferred.
        left_out: the first of everything that was not transferred, for whatever reason.
    """

    def __init__(self, report: OnEvent) -> None:
        self._report = report
        self._offsets: dict[str, int] = {}
        self.done = 0
        self.kept = 0
        self.omitted = 0
        self.moved = 0
        self.failures: list[FileLost] = []
        self.left_out: list[FileLost | EntrySkipped] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, FileProgress):
            self.moved += event.offset - self._offsets.get(event.path, event.offset)
            self._offsets[event.path] = event.offset
        elif isinstance(event, FileStarted):
            self._offsets[event.path] = event.offset
        elif isinstance(event, FileCompleted):
            self._offsets.pop(event.path, None)
            self.done += 1
        elif isinstance(event, AlreadyPresent):
            self._offsets.pop(event.path, None)
            self.kept += 1
        elif isinstance(event, EntrySkipped):
            self.omitted += 1
            self._remember(event)
        elif isinstance(event, FileLost):
            self._offsets.pop(event.path, None)
            self.failures.append(event)
            self._remember(event)
        self._report(event)

    def _remember(self, event: FileLost | EntrySkipped) -> None:
        if len(self.left_out) < MAX_LEFT_OUT:
            self.left_out.append(event)
