"""What became of a transfer's files."""

from __future__ import annotations

from .events import Begun, Done, Event, Kept, Lost, Moved, Omitted, Report

__all__ = ["Tally"]


class Tally:
    """Counts events on their way to whoever watches.

    Attributes:
        done: files that have arrived in this attempt.
        kept: files that were there already.
        omitted: what is not transferred at all: links, devices, unsafe names.
        moved: bytes that have moved in this attempt.
        failures: file and reason, of those that could not be transferred.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._offsets: dict[str, int] = {}
        self.done = 0
        self.kept = 0
        self.omitted = 0
        self.moved = 0
        self.failures: list[Lost] = []

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
            self.kept += 1
        elif isinstance(event, Omitted):
            self.omitted += 1
        elif isinstance(event, Lost):
            self._offsets.pop(event.path, None)
            self.failures.append(event)
        self._report(event)
