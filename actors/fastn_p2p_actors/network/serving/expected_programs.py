"""Programs that served when an earlier process of ours ended, and are expected back.

A call that is sent again may have been executed by one of them. Until they have said so, or have ended, it is not given
to another. So a program is noted before it gets the first call that may be sent again, since our end may be next; else
within ``_AT_MOST_EVERY``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fastn_p2p_client.ipc.messages import UNDECODABLE

__all__ = ["ExpectedPrograms", "Program"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 10.0
"""Seconds after our start in which they are waited for."""
_AT_MOST_EVERY: Final = 0.1
"""Seconds between two looks at who serves now."""
_LOOK_EVERY: Final = 0.1
"""Seconds between two looks at whether those that are waited for live."""


class Program(NamedTuple):
    """A process, and one binding that it serves."""

    pid: int
    identity: str
    protocol: str
    instance: str


class _Known(msgspec.Struct, frozen=True, array_like=True):
    program: Program
    started: int
    """When the process was started: another one may have its pid by now."""
    times: int = 1
    """How many connections of the process serve the binding."""


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(_Known)
_NOT_NOTED: Final = "which programs serve cannot be noted: %s"


class ExpectedPrograms:
    """Kept in one file of the runtime directory, which is there as long as programs serve."""

    def __init__(self, path: Path, programs: Callable[[], Iterable[Program]]) -> None:
        self._path = path
        self._programs = programs
        self._changed_timer: asyncio.TimerHandle | None = None
        self._looked_at = -_AT_MOST_EVERY
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + _PATIENCE
        self._missing = _read(path)
        self._noted: dict[Program, int] = {}
        """Programs that serve, and over how many connections, as in the file."""
        self._waiting: list[Callable[[], None]] = []
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """We end: who serves now is who is expected back."""
        self._closed = True
        for timer in (self._timer, self._changed_timer):
            if timer is not None:
                timer.cancel()

    def changed(self) -> None:
        """Others serve now. The first of several changes counts at once, and the rest together: a program that serves a
        thousand identities makes a thousand."""
        if self._closed or self._changed_timer is not None:
            return
        now = self._loop.time()
        if now >= self._looked_at + _AT_MOST_EVERY:
            self._look()
        else:
            self._changed_timer = self._loop.call_at(self._looked_at + _AT_MOST_EVERY, self._look)

    def _look(self) -> None:
        self._changed_timer = None
        self._looked_at = self._loop.time()
        self.update(self._programs())

    @property
    def is_behind(self) -> bool:
        """Return whether others serve than the file says."""
        return self._changed_timer is not None

    def note(self, program: Program, connections: int) -> None:
        """``program`` is about to get a call that may be sent again: the file must not be behind for it.

        Args:
            connections: of its process, which serve the binding.
        """
        if not self.is_behind or self._noted.get(program, 0) >= connections:
            return
        missing = self._missing.get(program)
        self._noted[program] = connections
        self._append(_Known(program, _started(program.pid) or 0, max(connections, missing.times if missing else 0)))

    def update(self, programs: Iterable[Program]) -> None:
        """These do now."""
        if self._closed:
            return
        self._noted = serving = Counter(programs)
        came = [known for known in self._missing.values() if serving[known.program] >= known.times]
        for known in came:
            del self._missing[known.program]
        started = {pid: _started(pid) or 0 for pid in {program.pid for program in serving}}
        expected = {program: _Known(program, started[program.pid], times) for program, times in serving.items()}
        expected.update((program, each) for program, each in self._missing.items() if _lives(each))
        self._save(list(expected.values()))
        if came:
            self._go_on()

    def is_expected(self, identity: str, protocol: str, instance: str) -> bool:
        """Whether somebody is still missing who served this binding."""
        if not self._missing:
            return False
        if self._loop.time() >= self._until:
            self._missing.clear()
            return False
        return any(
            known.program[1:] == (identity, protocol, instance) and _lives(known) for known in self._missing.values()
        )

    def retry_later(self, again: Callable[[], None]) -> None:
        """Call ``again`` when somebody has come back, or soon: somebody may have ended."""
        self._waiting.append(again)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_EVERY, self._go_on)

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for again in waiting:
            again()

    def _save(self, known: list[_Known]) -> None:
        try:
            if not known:
                self._path.unlink(missing_ok=True)
                return
            temporary = self._path.with_suffix(".tmp")
            temporary.write_bytes(_encoder.encode_lines(known))  # the next moment may be our last, not the machine's
            temporary.replace(self._path)
        except OSError as error:
            log.warning(_NOT_NOTED, error)

    def _append(self, known: _Known) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_encoder.encode_lines([known]))
        except OSError as error:
            log.warning(_NOT_NOTED, error)


def _read(path: Path) -> dict[Program, _Known]:
    """Those that live. Of several lines about one program the last holds."""
    with contextlib.suppress(OSError, *UNDECODABLE):
        known = {each.program: each for each in _decoder.decode_lines(path.read_bytes())}
        return {program: each for program, each in known.items() if _lives(each)}
    return {}


def _lives(known: _Known) -> bool:
    return _started(known.program.pid) == known.started


def _started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot (proc_pid_stat(5), field 22); None when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
