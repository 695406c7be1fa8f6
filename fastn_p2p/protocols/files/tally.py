"""What became of a transfer's files."""

from __future__ import annotations

from typing import Final

from .events import Begun, Done, Event, Kept, Lost, Moved, Omitted, Report

__all__ = ["MAX_LEFT_OUT", "Tally"]

MAX_LEFT_OUT: Final = 1000
"""Names of things that were left out which are kept for the end; a peer decides how many there are."""


class Tally:
    """Counts events on their way to whoever watches.

    Attributes:
        done: files that have arrived in this attempt.
        kept: files that were there already.
        omitted: what is not transferred at all: links, devices, unsafe names.
        moved: bytes that have moved in this attempt.
        failures: file and reason, of those that could not be transferred.
        left_out: the first of everything that was not transferred, for whatever reason.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._offsets: dict[str, int] = {}
        self.done = 0
        self.kept = 0
        self.omitted = 0
        self.moved = 0
        self.failures: list[Lost] = []
        self.left_out: list[Lost | Omitted] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Moved):
            self.moved += event.offset - self._offsets.get(event.path, event.offset)
            self._offsets[event.path] = event.offset
        elif isinstance(event, Begun):
            self._offsets[event.path] = event.offset
        elif isinstance(event, Done):
            self._offsets.pop(event.path, None)
            self.done += 1
        elif isinstance(event, Kept):
            self._offsets.pop(event.path, None)
            self.kept += 1
        elif isinstance(event, Omitted):
            self.omitted += 1
            self._remember(event)
        elif isinstance(event, Lost):
            self._offsets.pop(event.path, None)
            self.failures.append(event)
            self._remember(event)
        self._report(event)

    def _remember(self, event: Lost | Omitted) -> None:
        if len(self.left_out) < MAX_LEFT_OUT:
            self.left_out.append(event)
