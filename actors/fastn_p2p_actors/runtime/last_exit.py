"""Record of how the daemon ended last.

It is kept in ``run/``. ``status`` shows it while no daemon runs, and for an hour after the next start.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE

SHOWN_SECONDS: Final = 3600.0
"""Seconds after a start during which ``status`` shows how the previous daemon failed."""
_LAST: Final = "last-exit.json"
_PREVIOUS: Final = "previous-exit.json"
_KILLED: Final = "it was killed, or the machine went down"


class LastExit(msgspec.Struct, frozen=True, kw_only=True):
    """Record of how a daemon ended."""

    code: int
    """Exit code; not 0 if the daemon failed."""
    reason: str
    """Reason in plain words."""
    at: str = ""
    """Time in UTC, ISO 8601; empty if the daemon could not write it."""

    def __str__(self) -> str:
        return f"{self.reason} (at {self.at})" if self.at else self.reason


def begin(home: Home) -> LastExit | None:
    """Begin a new run: make the last exit the previous one, and return it."""
    previous = read_last(home)
    with contextlib.suppress(OSError):
        _file(home, _LAST).unlink(missing_ok=True)
    if previous is None:
        with contextlib.suppress(OSError):
            _file(home, _PREVIOUS).unlink(missing_ok=True)
    else:
        _write(_file(home, _PREVIOUS), previous)
    return previous


def note(home: Home, code: int, reason: str) -> None:
    """Record that the daemon is about to exit. If the disk does not take it, only the reason is lost."""
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    _write(_file(home, _LAST), LastExit(code=code, reason=reason, at=at))


def read_last(home: Home) -> LastExit | None:
    """Return how the last daemon ended, while none runs. None if none has run, or if nothing is known."""
    found = _read(_file(home, _LAST))
    if found is None and home.process_file.exists():  # a daemon removes this file when it ends in order
        return LastExit(code=-9, reason=_KILLED)
    return found


def read_previous(home: Home) -> LastExit | None:
    """Return how the daemon before the present one ended; None if nothing is known."""
    return _read(_file(home, _PREVIOUS))


def _file(home: Home, name: str) -> Path:
    return home.path / "run" / name


def _read(path: Path) -> LastExit | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LastExit)
    except (OSError, *UNDECODABLE):
        return None


def _write(path: Path, record: LastExit) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(path)
