"""Ends of the log files, without what the code of protocols has written."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.home import Home

from ..log_reader import LogRecord

_FILES: Final = 20
"""Log files in a report: those written to last."""
_LINES: Final = 200
"""Lines of each."""
_BYTES: Final = 128 * 1024
"""Bytes at the end of a file that are read."""
_LINE: Final = re.compile(r"\d{4}-\d\d-\d\dT\S+ [A-Z]+ (?P<logger>\S+): ")
_FRAME: Final = re.compile(r" *\|? *File \"[^\"]+\", line \d+")
_EXCEPTION: Final = re.compile(r"( *\|? *[\w.]+(?:Error|Exception|Exit|Interrupt|Warning|Group)\b)(:.*)?")


def log_excerpts(home: Home) -> Iterator[tuple[str, list[str]]]:
    """Return the name and the last lines of each log file."""
    try:
        files = sorted(home.logs.glob("*.log"), key=lambda each: each.stat().st_mtime, reverse=True)[:_FILES]
    except OSError:
        return
    for file in sorted(files):
        lines: Iterable[str]
        try:
            lines = _last_lines(file)
        except OSError as error:
            yield file.name, [f"cannot be read: {error.strerror}"]
            continue
        if file.name.startswith("identity-"):
            lines = without_protocols(lines)
        yield file.name, list(deque(lines, _LINES))


def _last_lines(file: Path) -> list[str]:
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _BYTES))
        lines = opened.read().decode(errors="replace").splitlines()
    return lines[1:] if size > _BYTES else lines


def without_protocols(lines: Iterable[str]) -> Iterator[str]:
    """Return the lines of an identity's log without the texts of protocols: of their loggers and exceptions.

    Of a traceback, the places in files and the types of exceptions stay.
    """
    of_protocol = False
    for line in _as_text(lines):
        found = _LINE.match(line)
        if found is not None:
            of_protocol = not found["logger"].startswith(("fastn_p2p_", "identity-", "asyncio"))
            yield f"{found[0]}(left out: the text of a protocol)" if of_protocol else line
        elif (frame := _FRAME.match(line)) is not None:
            yield frame[0]
        elif (exception := _EXCEPTION.fullmatch(line)) is not None:
            yield f"{exception[1]}: …" if exception[2] else line


def _as_text(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log; for those of ``log.format = "json"`` the lines that the text format has."""
    for line in lines:
        if not line.startswith('{"time":'):
            yield line
            continue
        with suppress(msgspec.DecodeError):
            record = msgspec.json.decode(line, type=LogRecord)
            yield f"{record.time} {record.level} {record.logger}: {record.message}"
            yield from record.trace.splitlines()
