"""Reader of the log files of all processes: their lines in the order of time, as records with fields."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec

from ..console.exit_codes import CommandLineError
from .audit_reader import POLL
from .rotated_file import RotatedFile

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LINE: Final = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([A-Z]+) ([^\s:\[]+)(?:\[([^\s:\]]*)\])?: (.*)\n", re.DOTALL
)


class LogRecord(msgspec.Struct, frozen=True):
    """Record of a log. ``docs/monitoring.md`` has the fields; scripts read them."""

    time: str
    """UTC, ISO 8601, with milliseconds."""
    level: str
    actor: str
    """Process: ``supervisor``, ``vault``, ``network``, ``gateway`` or ``identity-NAME``."""
    logger: str
    """Part of the code."""
    message: str
    trace: str = ""
    """Traceback, in several lines; empty without one."""
    request_id: str = ""
    """Call or session that the record is about; empty for none."""


_json: Final = msgspec.json.Decoder(LogRecord)


class LogSelection(msgspec.Struct, frozen=True):
    """Records that are wanted.

    Attributes:
        actors: names of processes or identities; all if there are none.
        since: earliest time, as in a record; empty for none.
        level: lowest level.
        request_id: call, session, or request that a session carries; empty for all records.
    """

    actors: tuple[str, ...] = ()
    since: str = ""
    level: str = LEVELS[0]
    request_id: str = ""

    def has_actor(self, actor: str) -> bool:
        return not self.actors or actor in self.actors or actor.removeprefix("identity-") in self.actors

    def _is_about(self, request_id: str) -> bool:
        """Return whether an id is the one that is looked for, or that of the session which carries it."""
        return self.request_id == request_id or (bool(request_id) and self.request_id.startswith(request_id + "/"))

    def has(self, record: LogRecord) -> bool:
        level = LEVELS.index(record.level) if record.level in LEVELS else len(LEVELS)
        if self.request_id and not self._is_about(record.request_id):
            return False
        return record.time >= self.since and level >= LEVELS.index(self.level)


def parse_level(text: str) -> str:
    """Return a level. Raises CommandLineError."""
    level = text.upper()
    if level not in LEVELS:
        raise CommandLineError(f"--level: {text!r} is no level. Give one of {', '.join(LEVELS)}")
    return level


def read_records(directory: Path, wanted: LogSelection) -> Iterator[LogRecord]:
    """Yield the records of all log files in the directory, in the order of time.

    Raises:
        OSError: a file cannot be read.
    """
    with ExitStack() as stack:
        logs = [stack.enter_context(_ActorLog(file)) for file in _files(directory, wanted)]
        yield from filter(wanted.has, merge(*(each.read() for each in logs), key=attrgetter("time")))


def follow_records(
    directory: Path, wanted: LogSelection, wait: Callable[[], object] = lambda: time.sleep(POLL)
) -> Iterator[LogRecord]:
    """Yield all records, and then each further one soon after it was written. Never ends.

    Args:
        wait: waits until the files should be looked at again.
    """
    with ExitStack() as stack:
        logs: dict[Path, _ActorLog] = {}
        while True:
            for file in _files(directory, wanted, logs):
                logs[file] = stack.enter_context(_ActorLog(file))
            yield from filter(wanted.has, merge(*(each.read() for each in logs.values()), key=attrgetter("time")))
            wait()


def _files(directory: Path, wanted: LogSelection, known: Collection[Path] = ()) -> list[Path]:
    found = sorted(directory.glob("*.log"))
    return [each for each in found if each not in known and wanted.has_actor(each.stem)]


class _ActorLog:
    """Log of one process; a context manager."""

    def __init__(self, path: Path) -> None:
        self._actor = path.stem
        self._file = RotatedFile(path)
        self._last = ""
        """Time of the last record."""

    def __enter__(self) -> _ActorLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    def read(self) -> Iterator[LogRecord]:
        """Yield each record that was written since the last call. Lines that follow a record belong to it."""
        begun: LogRecord | None = None
        trace: list[bytes] = []
        for line in self._file.read():
            found = self._parse(line)
            if found is None:
                trace.append(line)
                continue
            if begun is not None:
                yield self._complete(begun, trace)
            # A file that was cut is read again: what is older than the last record was read before.
            begun, trace = (found if found.time >= self._last else None), []
        if begun is not None:
            yield self._complete(begun, trace)

    def _parse(self, line: bytes) -> LogRecord | None:
        """Return the record that begins with a line, of either format; None if none does."""
        found = _LINE.fullmatch(line)
        if found is not None:
            at, level, logger, request_id, message = (part.decode(errors="replace") for part in found.groups(b""))
            return LogRecord(at, level, self._actor, logger, message, request_id=request_id)
        if line.startswith(b'{"time":'):
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                return msgspec.structs.replace(_json.decode(line), actor=self._actor)
        return None

    def _complete(self, begun: LogRecord, trace: list[bytes]) -> LogRecord:
        self._last = begun.time
        if not trace:
            return begun
        return msgspec.structs.replace(begun, trace=b"".join(trace).decode(errors="replace").rstrip("\n"))
