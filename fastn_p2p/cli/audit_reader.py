"""Reader of the audit log: its files from the oldest to the newest, and lines that are added later."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
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
    files = _open_files(path)
    try:
        for opened in files:
            yield from _lines(opened)
    finally:
        _close(files)


def follow_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all files, and then each further line as soon as it is written. Never ends."""
    files = _open_files(path)
    try:
        while True:
            for opened in files:
                yield from _lines(opened)
            _close(files[:-1])
            del files[:-1]
            if not files or not _is_current(files[0], path):
                files += _newer(_open_files(path), files)
            if len(files) < 2:
                time.sleep(_POLL)
    finally:
        _close(files)


def _open_files(path: Path) -> list[BinaryIO]:
    """Open all files, the oldest first.

    The newest one is opened first: if the log is rotated meanwhile, a file is found twice, and none is missed.
    """
    found: dict[tuple[int, int], BinaryIO] = {}
    try:
        for number in range(_OLD_FILES + 1):
            with suppress(FileNotFoundError):
                opened = path.with_name(f"{path.name}.{number}" if number else path.name).open("rb")
                if found.setdefault(_identity(opened), opened) is not opened:
                    opened.close()
    except BaseException:
        _close(found.values())
        raise
    return list(reversed(found.values()))


def _newer(files: list[BinaryIO], known: list[BinaryIO]) -> list[BinaryIO]:
    """Return the files that are newer than the known one, and close the others."""
    identities = [_identity(each) for each in files]
    first = next((identities.index(each) + 1 for each in map(_identity, known) if each in identities), 0)
    _close(files[:first])
    return files[first:]


def _identity(opened: BinaryIO) -> tuple[int, int]:
    found = os.fstat(opened.fileno())
    return found.st_dev, found.st_ino


def _close(files: Iterable[BinaryIO]) -> None:
    for each in files:
        each.close()


def _is_current(opened: BinaryIO, path: Path) -> bool:
    """Return False once the file was rotated."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


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
