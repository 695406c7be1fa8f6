"""What happens in a transfer, for whoever watches: bars on a terminal, or lines of JSON for scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from .messages import OfferState

__all__ = [
    "Begun",
    "Done",
    "Event",
    "Expected",
    "Kept",
    "Lost",
    "Moved",
    "Offered",
    "Omitted",
    "Report",
    "Restarted",
    "Retrying",
    "unwatched",
]


class Expected(msgspec.Struct, frozen=True, tag="expected", tag_field="event"):
    """So much is to be got, as far as the other side has said by now."""

    files: int
    bytes: int


class Begun(msgspec.Struct, frozen=True, tag="begun", tag_field="event"):
    """A file's content begins to move."""

    path: str
    size: int
    offset: int
    """Bytes that were there already, from an earlier attempt."""


class Moved(msgspec.Struct, frozen=True, tag="moved", tag_field="event"):
    """So many of its bytes are there now."""

    path: str
    offset: int


class Restarted(msgspec.Struct, frozen=True, tag="restarted", tag_field="event"):
    """What was there of the file is no beginning of what the other side has now: it begins anew."""

    path: str


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="event"):
    """The file is there, complete, checked, and on disk."""

    path: str
    size: int


class Kept(msgspec.Struct, frozen=True, tag="kept", tag_field="event"):
    """The file was there already."""

    path: str
    size: int


class Omitted(msgspec.Struct, frozen=True, tag="skipped", tag_field="event"):
    """Something that is not transferred, because it is no file, or because of its name."""

    path: str
    reason: str


class Lost(msgspec.Struct, frozen=True, tag="failed", tag_field="event"):
    """The file is not transferred; the others go on."""

    path: str
    kind: str
    message: str


class Retrying(msgspec.Struct, frozen=True, tag="retrying", tag_field="event"):
    """The way to the other side is broken, and is tried again."""

    reason: str
    seconds: float


class Offered(msgspec.Struct, frozen=True, tag="offer", tag_field="event"):
    """How an offer stands."""

    offer: str
    state: OfferState
    files: int
    bytes: int


Event: TypeAlias = Expected | Begun | Moved | Restarted | Done | Kept | Omitted | Lost | Retrying | Offered

Report: TypeAlias = Callable[[Event], object]
"""Takes each event as it happens, inside the event loop. Must not raise."""


def unwatched(_event: Event) -> None:
    """The ``Report`` of whoever does not watch."""
