"""What happens in a transfer, for whoever watches: bars on a terminal, or lines of JSON for scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from .messages import OfferState

__all__ = [
    "AlreadyPresent",
    "Discovered",
    "EntrySkipped",
    "Event",
    "FileCompleted",
    "FileLost",
    "FileProgress",
    "FileRestarted",
    "FileStarted",
    "OfferChanged",
    "OnEvent",
    "Retrying",
    "ignore_events",
]


class Discovered(msgspec.Struct, frozen=True, tag="expected", tag_field="event"):
    """So much is to be got, as far as the other side has said by now."""

    files: int
    bytes: int


class FileStarted(msgspec.Struct, frozen=True, tag="begun", tag_field="event"):
    """A file's content begins to move."""

    path: str
    size: int
    offset: int
    """Bytes that were there already, from an earlier attempt."""


class FileProgress(msgspec.Struct, frozen=True, tag="moved", tag_field="event"):
    """So many of its bytes are there now."""

    path: str
    offset: int


class FileRestarted(msgspec.Struct, frozen=True, tag="restarted", tag_field="event"):
    """What was there of the file is no beginning of what the other side has now: it begins anew."""

    path: str


class FileCompleted(msgspec.Struct, frozen=True, tag="done", tag_field="event"):
    """The file is there, complete, checked, and on disk."""

    path: str
    size: int


class AlreadyPresent(msgspec.Struct, frozen=True, tag="kept", tag_field="event"):
    """The file was there already."""

    path: str
    size: int


class EntrySkipped(msgspec.Struct, frozen=True, tag="skipped", tag_field="event"):
    """Something that is not transferred, because it is no file, or because of its name."""

    path: str
    reason: str


class FileLost(msgspec.Struct, frozen=True, tag="failed", tag_field="event"):
    """The file is not transferred; the others go on."""

    path: str
    kind: str
    message: str


class Retrying(msgspec.Struct, frozen=True, tag="retrying", tag_field="event"):
    """The way to the other side is broken, and is tried again."""

    reason: str
    seconds: float


class OfferChanged(msgspec.Struct, frozen=True, tag="offer", tag_field="event"):
    """How an offer stands."""

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
"""Takes each event as it happens, inside the event loop. Must not raise."""


def ignore_events(_event: Event) -> None:
    """The ``OnEvent`` of whoever does not watch."""
