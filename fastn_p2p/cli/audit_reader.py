"""Reader of the audit log: its files from the oldest to the newest, and lines that are added later."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..console.exit_codes import CommandLineError
from .rotated_file import RotatedFile

POLL: Final = 0.2
"""Seconds between two looks for further lines."""
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


def parse_since(text: str, now: datetime | None = None) -> str:
    """Return a time as it stands in the log. It is empty, and before all others, for an empty text.

    Raises:
        CommandLineError: the text is no time.
    """
    if not text:
        return ""
    span = re.fullmatch(r"(\d{1,6})([mhd])", text)
    try:
        if span is not None:
            moment = (now or datetime.now(UTC)) - timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandLineError(f"--since: {text!r} is no time. Give 30m, 12h, 7d, or 2026-01-31T12:00") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all files, the oldest first. A line that is no line of the log is left out.

    Raises:
        OSError: a file cannot be read.
    """
    with RotatedFile(path) as file:
        yield from _parsed(file)


def follow_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all files, and then each further line as soon as it is written. Never ends."""
    with RotatedFile(path) as file:
        while True:
            yield from _parsed(file)
            time.sleep(POLL)


def _parsed(file: RotatedFile) -> Iterator[dict[str, Any]]:
    for data in file.read():
        try:
            line = msgspec.json.decode(data, type=dict[str, Any])
        except UNDECODABLE:
            continue
        if all(name in line for name in ("time", "actor", "event")):
            yield line
