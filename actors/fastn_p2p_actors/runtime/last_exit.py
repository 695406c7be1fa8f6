"""How the daemon ended last: kept in ``run/``, for ``status`` while none runs and for an hour after the next start."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE

__all__ = ["SHOWN_SECONDS", "LastExit", "begin", "note", "read_last", "read_previous"]

SHOWN_SECONDS: Final = 3600.0
"""Seconds after a start during which ``status`` speaks of a daemon that had failed before."""
_LAST: Final = "last-exit.json"
_PREVIOUS: Final = "previous-exit.json"
_KILLED: Final = "it was killed, or the machine went down"


class LastExit(msgspec.Struct, frozen=True, kw_only=True):
    """Record of how a daemon ended."""

    code: int
    """Exit code; not 0 when it failed."""
    reason: str
    """In words for people."""
    at: str = ""
    """UTC, ISO 8601; empty when nobody could note it."""

    def __str__(self) -> str:
        return f"{self.reason} (at {self.at})" if self.at else self.reason


def begin(home: Home) -> LastExit | None:
    """A daemon starts: from now on the last exit is the previous one. Return it."""
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
    """The daemon is about to exit. A disk that does not take it costs the reason, and nothing else."""
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    _write(_file(home, _LAST), LastExit(code=code, reason=reason, at=at))


def read_last(home: Home) -> LastExit | None:
    """How the last daemon ended, while none runs; None when none has run, or nothing is known of it."""
    found = _read(_file(home, _LAST))
    if found is None and home.process_file.exists():  # which a daemon removes when it ends in order
        return LastExit(code=-9, reason=_KILLED)
    return found


def read_previous(home: Home) -> LastExit | None:
    """How the daemon before the present one ended; None when nothing is known of it."""
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
