"""Reader of the audit log: its files from the oldest to the newest, and lines that are added later."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..console.exit_codes import CommandLineError

_OLD_FILES: Final = 9
"""Numbers of old files that are looked for. The vault keeps fewer."""
_POLL: Final = 0.2
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
    for file in _files(path):
        try:
            with file.open("rb") as opened:
                yield from _lines(opened)
        except FileNotFoundError:
            continue  # rotated meanwhile


def follow_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all files, and then each further line as soon as it is written. Never ends."""
    *old, _ = _files(path)
    for file in old:
        with file.open("rb") as opened:
            yield from _lines(opened)
    while True:
        try:
            with path.open("rb") as opened:
                yield from _lines(opened)
                while _is_current(opened, path):
                    yield from _lines(opened)
                    time.sleep(_POLL)
                yield from _lines(opened)
        except FileNotFoundError:
            time.sleep(_POLL)


def _is_current(opened: BinaryIO, path: Path) -> bool:
    """Return False once the file was rotated."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _files(path: Path) -> list[Path]:
    old = (path.with_name(f"{path.name}.{number}") for number in range(_OLD_FILES, 0, -1))
    return [*(file for file in old if file.exists()), path]


def _lines(opened: BinaryIO) -> Iterator[dict[str, Any]]:
    while True:
        start = opened.tell()
        data = opened.readline()
        if not data.endswith(b"\n"):
            opened.seek(start)  # the rest of it is being written
            return
        try:
            line = msgspec.json.decode(data, type=dict[str, Any])
        except UNDECODABLE:
            continue
        if all(name in line for name in ("time", "actor", "event")):
            yield line
