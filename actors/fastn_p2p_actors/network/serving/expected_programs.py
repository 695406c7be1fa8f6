"""Programs that served when the network process ended, and are expected to register again with its successor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from fastn_p2p_client.ipc.messages import UNDECODABLE

log = logging.getLogger(__name__)

_WAIT: Final = 10.0
"""Seconds after the start of the network process in which these programs are expected."""
_UPDATE_INTERVAL: Final = 0.1
"""Seconds between two updates of the file."""
_RETRY_INTERVAL: Final = 0.1
"""Seconds between two attempts of a call that waits: the program that it waits for may have ended."""


class Program(NamedTuple):
    """Process, and one binding that it serves."""

    pid: int
    identity: str
    protocol: str
    instance: str


_EarlierBinding: TypeAlias = tuple[str, str, str, str]
"""Identity, protocol and instance of a binding, and a start of the daemon in hexadecimal."""
_FORGOTTEN: Final = "-"
"""Stands for the starts at which a program served that is not there any more."""
_MAX_STARTS: Final = 8
"""Starts of the daemon that are listed for one program."""


class _ListedProgram(msgspec.Struct, frozen=True, array_like=True):
    program: Program
    started: int
    """Start of the process, in clock ticks since boot: another process may have its pid by now."""
    times: int = 1
    """Number of the process's connections that serve the binding."""
    starts: tuple[str, ...] = ()
    """Starts of the daemon at which it served, in hexadecimal, the latest last."""

    def bindings(self) -> Iterator[_EarlierBinding]:
        """Iterate over the binding at each start."""
        for start in self.starts:
            yield *self.program[1:], start


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(_ListedProgram)
_NOT_WRITTEN: Final = "cannot list the programs that serve, so a retried call may run twice after a restart: %s"


# A retried call must be executed once. The program that has executed it remembers its call id, and each attempt goes to
# that program or is answered "call unknown" by it. The network process knows which program has had a call. If it is
# restarted, it knows nothing, and another program that registers first would execute the call a second time.
#
# So a file in the runtime directory lists the programs that serve, with the start time of each process. A successor
# reads it, and holds retried calls for a binding while a program that served it is missing. It is missing until it has
# registered over as many connections as before, until its process has ended, or until ``_WAIT`` seconds are over.
#
# The file must be right before a program gets a retryable call, because the network process may end right after. But to
# write it for each registration costs too much: a program that serves a thousand identities makes a thousand. So the
# first of several changes is written at once, and the others together within ``_UPDATE_INTERVAL``. A program that gets
# a retryable call before that is appended to the file first (``note``). Of several lines for one program, the last
# counts.
#
# The file tells also whether all programs of earlier starts of the daemon live. If one does not, it may have executed a
# call, and took with it what it knew (``may_have_lost``). Such a start is not listed any more.
#
# Not covered: a restart of the machine, after which no program lives, so the file is not synced to the disk. And a
# program that needs longer than ``_WAIT``: its call goes to another program then, unless it served at an earlier start.


class ExpectedPrograms:
    """Set of programs that may have executed a retried call and have not registered again.

    It is kept in one file of the runtime directory, which exists as long as programs serve.

    Args:
        path: the file.
        programs: returns the programs that serve now.
        start: start of the daemon, in hexadecimal.
    """

    def __init__(self, path: Path, programs: Callable[[], Iterable[Program]], start: str = "") -> None:
        self._path = path
        self._programs = programs
        self._start = start
        self._update_timer: asyncio.TimerHandle | None = None
        self._updated_at = -_UPDATE_INTERVAL
        self._loop = asyncio.get_running_loop()
        self._expected_until = self._loop.time() + _WAIT
        found = _read(path)
        self._missing = {program: each for program, each in found.items() if _is_alive(each)}
        self._starts = {program: each.starts for program, each in self._missing.items()}
        self._known = frozenset(binding for each in found.values() for binding in each.bindings())
        self._lost = {binding for binding in self._known if binding[3] == _FORGOTTEN}
        self._lose(each for program, each in found.items() if program not in self._missing)
        self._listed: dict[Program, int] = {}
        """Programs in the file, and over how many connections each serves."""
        self._waiting: list[Callable[[], None]] = []
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Write the last changes, and then no more: the file says which programs the successor has to expect."""
        if self._update_timer is not None and not self._closed:
            self._update_timer.cancel()
            self._update_now()
        self._closed = True
        for timer in (self._timer, self._update_timer):
            if timer is not None:
                timer.cancel()

    def changed(self) -> None:
        """Write the programs that serve now, or do so within ``_UPDATE_INTERVAL`` seconds if that was just done."""
        if self._closed or self._update_timer is not None:
            return
        now = self._loop.time()
        if now >= self._updated_at + _UPDATE_INTERVAL:
            self._update_now()
        else:
            self._update_timer = self._loop.call_at(self._updated_at + _UPDATE_INTERVAL, self._update_now)

    def _update_now(self) -> None:
        self._update_timer = None
        self._updated_at = self._loop.time()
        self.update(self._programs())

    @property
    def is_behind(self) -> bool:
        """True if programs have changed and the file does not say so yet."""
        return self._update_timer is not None

    def note(self, program: Program, connections: int) -> None:
        """Append ``program`` to the file unless it is there: it is about to get a retryable call.

        Args:
            program: gets the call.
            connections: number of its process's connections that serve the binding.
        """
        if not self.is_behind or self._listed.get(program, 0) >= connections:
            return
        missing = self._missing.get(program)
        self._listed[program] = connections
        self._append(
            _ListedProgram(
                program,
                _start_time(program.pid) or 0,
                max(connections, missing.times if missing else 0),
                self._starts_of(program),
            )
        )

    def update(self, programs: Iterable[Program]) -> None:
        """Replace the programs that serve now, and write them with the missing ones to the file."""
        if self._closed:
            return
        self._listed = serving = Counter(programs)
        returned = [known for known in self._missing.values() if serving[known.program] >= known.times]
        for known in returned:
            del self._missing[known.program]
        started = {pid: _start_time(pid) or 0 for pid in {program.pid for program in serving}}
        missing = {program: each for program, each in self._missing.items() if _is_alive(each)}
        self._lose(each for program, each in self._missing.items() if program not in missing)
        expected = {
            program: _ListedProgram(program, started[program.pid], times, self._starts_of(program))
            for program, times in serving.items()
        }
        expected.update(missing)
        self._save(list(expected.values()))
        if returned:
            self._retry_all()

    def is_expected(self, identity: str, protocol: str, instance: str) -> bool:
        """Return whether a program that served this binding is still missing."""
        if not self._missing:
            return False
        if self._loop.time() >= self._expected_until:
            self._lose(self._missing.values())
            self._missing.clear()
            return False
        return any(
            known.program[1:] == (identity, protocol, instance) and _is_alive(known) for known in self._missing.values()
        )

    def may_have_lost(self, identity: str, protocol: str, instance: str, start: str) -> bool:
        """Return whether a process that served the binding at an earlier start of the daemon may have ended.

        False only if programs alone served it then, and all of them have registered again.

        Args:
            identity, protocol, instance: the binding.
            start: in hexadecimal; empty for one that is not known.
        """
        names = identity, protocol, instance
        earlier = {
            each
            for each in self._known
            if each[:3] == names and (each[3] == start if start else each[3] != self._start)
        }
        lost = self._lost.union(*(each.bindings() for each in self._missing.values()))
        return not earlier or not earlier.isdisjoint(lost)

    def _lose(self, programs: Iterable[_ListedProgram]) -> None:
        """Note that these programs are not there any more."""
        self._lost.update(binding for each in programs for binding in each.bindings())

    def _starts_of(self, program: Program) -> tuple[str, ...]:
        """Return the starts of the daemon to list for a program: those at which every program has stayed."""
        earlier = [each for each in self._starts.get(program, ()) if each != self._start]
        kept = [each for each in earlier if (*program[1:], each) not in self._lost]
        forgotten = (_FORGOTTEN,) if len(kept) < len(earlier) or len(kept) >= _MAX_STARTS else ()
        return *forgotten, *kept[1 - _MAX_STARTS :], self._start

    def retry_later(self, again: Callable[[], None]) -> None:
        """Call ``again`` once: when a program has registered again, or after ``_RETRY_INTERVAL`` seconds."""
        self._waiting.append(again)
        if self._timer is None:
            self._timer = self._loop.call_later(_RETRY_INTERVAL, self._retry_all)

    def _retry_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for again in waiting:
            again()

    def _save(self, known: list[_ListedProgram]) -> None:
        try:
            if not known:
                self._path.unlink(missing_ok=True)
                return
            temporary = self._path.with_suffix(".tmp")
            temporary.write_bytes(
                _encoder.encode_lines(known)
            )  # no fsync: a restart of the machine ends the programs too
            temporary.replace(self._path)
        except OSError as error:
            log.warning(_NOT_WRITTEN, error)

    def _append(self, known: _ListedProgram) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_encoder.encode_lines([known]))
        except OSError as error:
            log.warning(_NOT_WRITTEN, error)


def _read(path: Path) -> dict[Program, _ListedProgram]:
    """Return the programs of the file. Of several lines for one program the last counts."""
    with contextlib.suppress(OSError, *UNDECODABLE):
        return {each.program: each for each in _decoder.decode_lines(path.read_bytes())}
    return {}


def _is_alive(known: _ListedProgram) -> bool:
    return _start_time(known.program.pid) == known.started


def _start_time(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since boot (proc_pid_stat(5), field 22); None without one.

    A worker on another machine has a negative pid and counts as alive, because nobody here knows.
    """
    if pid < 0:
        return 0
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
