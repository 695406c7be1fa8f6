"""Events of a transfer, for progress bars and for scripts, and the summary that counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from .messages import OfferState

MAX_LEFT_OUT: Final = 1000
"""Names of files left out that a summary keeps; their number is up to the peer."""


class Discovered(msgspec.Struct, frozen=True, tag="expected", tag_field="event"):
    """Files and bytes to transfer, as far as the peer has listed them."""

    files: int
    bytes: int


class FileStarted(msgspec.Struct, frozen=True, tag="begun", tag_field="event"):
    """The content of a file begins to move."""

    path: str
    size: int
    offset: int
    """Bytes that an earlier attempt has transferred."""


class FileProgress(msgspec.Struct, frozen=True, tag="moved", tag_field="event"):
    """Bytes of a file that have been transferred."""

    path: str
    offset: int


class FileRestarted(msgspec.Struct, frozen=True, tag="restarted", tag_field="event"):
    """The partial file is not a prefix of the peer's file, so its transfer begins anew."""

    path: str


class FileCompleted(msgspec.Struct, frozen=True, tag="done", tag_field="event"):
    """A file is complete, checked, and on disk."""

    path: str
    size: int


class AlreadyPresent(msgspec.Struct, frozen=True, tag="kept", tag_field="event"):
    """The receiver has the file already."""

    path: str
    size: int


class EntrySkipped(msgspec.Struct, frozen=True, tag="skipped", tag_field="event"):
    """An entry is not transferred because it is not a file, or because of its name."""

    path: str
    reason: str


class FileLost(msgspec.Struct, frozen=True, tag="failed", tag_field="event"):
    """A file is not transferred; the others go on."""

    path: str
    kind: str
    message: str


class Retrying(msgspec.Struct, frozen=True, tag="retrying", tag_field="event"):
    """The connection to the peer failed and is tried again after ``seconds``."""

    reason: str
    seconds: float


class OfferChanged(msgspec.Struct, frozen=True, tag="offer", tag_field="event"):
    """State of an offer."""

    offer: str
    state: OfferState
    files: int
    bytes: int


Event: TypeAlias = (
    Discovered
    | FileStarted
    | FileProgress
    | FileRestarted
    | FileCompleted
    | AlreadyPresent
    | EntrySkipped
    | FileLost
    | Retrying
    | OfferChanged
)

OnEvent: TypeAlias = Callable[[Event], object]
"""Callback for events, called inside the event loop. Must not raise."""


def ignore_events(_event: Event) -> None:
    """Do nothing; the default ``OnEvent``."""


class TransferSummary:
    """Counts of a transfer. Called with each event; passes it on to ``report``.

    Attributes:
        done: files that arrived in this attempt.
        kept: files that the receiver had already.
        omitted: entries that are never transferred: links, devices, unsafe names.
        moved: bytes transferred in this attempt.
        failures: files that could not be transferred, with the reason.
        left_out: the first ``MAX_LEFT_OUT`` of ``failures`` and omitted entries.
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
