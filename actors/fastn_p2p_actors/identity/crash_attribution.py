"""Whose code was running when the process ended.

While code of a binding runs, its number stands in a file that is mapped into memory: writing there costs nothing, and
what is written outlives the process, however that ends. The next process reads it. If the end was the process's own
doing (it exited, crashed or hung; the supervisor says so), the binding is to blame, and a binding that is to blame
``DEATHS`` times in ``WINDOW`` seconds, or for as many as ``HANGS`` hangs, which take longer, is not started any more
until its config is written again: so one protocol costs an identity its other ones for a moment, and not for ever.

Code of a binding is what runs in a step of one of its hooks or handlers, or of a task that such code has started, and
the import of its module. What it runs in threads is not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.serving.protocol_lifecycle import CodeRunner

from ..runtime.process_setup import memory_in_use

__all__ = ["DEATHS", "EXIT_MEMORY", "HANGS", "WINDOW", "AttributingRunner", "Crash", "CrashAttribution"]

DEATHS: Final = 3
HANGS: Final = 2
WINDOW: Final = 600.0
EXIT_MEMORY: Final = 71
"""The process has no memory left, and what took it does not give it back."""

_MARK: Final = struct.Struct("=I")
"""What runs: 65,536 times the number of the binding, and the number of what of it; 0 while nothing does."""
_SIZE: Final = 16 * 1024
_KEPT: Final = 64
"""Deaths that are remembered."""
_SCARCE: Final = 0.75
"""Share of the memory that may be in use after somebody got none …"""
_RELEASE_SECONDS: Final = 0.1
"""… and has had this long to give back what he had."""

Name = tuple[str, str]
"""Protocol and instance."""

T = TypeVar("T")

log = logging.getLogger(__name__)

_forks = 0
"""How many forks lie between this process and the first one that has loaded this module."""


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


class Crash(msgspec.Struct, frozen=True):
    """One end of the process that a binding is to blame for."""

    protocol: str
    instance: str
    place: str
    """What of it was running."""
    ending: str
    """How the process ended."""
    at: float
    """Unix time at which it was noticed."""
    hung: bool = False


class CrashAttribution:
    """Of one process, and what is known of those before it. Made inside the running event loop.

    Args:
        path: without its suffix: ``.running`` and ``.deaths`` are added.
        fault: how the process before this one ended, if that was its own doing.
        hung: whether that was a silence.
        memory: the bytes of data that this process may have; 0 for no limit.
    """

    def __init__(
        self, path: Path, fault: str, *, hung: bool = False, memory: int = 0, wall: Callable[[], float] = time.time
    ) -> None:
        self._running = path.with_name(f"{path.name}.running")
        self._file = path.with_name(f"{path.name}.deaths")
        self._memory = memory
        self._wall = wall
        self._forks = _forks
        self._loop = asyncio.get_running_loop()
        self._checking = False
        self._names: dict[str, int] = {}
        self._end = _MARK.size
        self._deaths = self._remember(fault, hung)
        self._map = self._mapped()
        self._now = memoryview(self._map)[: _MARK.size].cast("I")

    def limit_memory(self, most: int) -> None:
        """The process may have so many bytes of data from now on; 0 for no limit."""
        self._memory = most

    def close(self) -> None:
        """Nothing of a binding runs here any more, and the end of the process is in order."""
        self._now[0] = 0
        with contextlib.suppress(OSError):
            self._running.unlink(missing_ok=True)

    def crash_loop(self, name: Name, since: float) -> list[Crash]:
        """The deaths that the binding is to blame for after ``since`` (Unix time), oldest first; none unless that is
        too many.

        A time in the future, from a clock that was ahead, counts as none: it would forgive everything for hours."""
        if since > self._wall():
            since = 0.0
        deaths = [death for death in self._deaths if (death.protocol, death.instance) == name and death.at > since]
        return deaths if len(deaths) >= DEATHS or sum(death.hung for death in deaths) >= HANGS else []

    # ── marks ────────────────────────────────────────────────────────────────────────────────────

    def mark(self, name: Name, what: str) -> int:
        """What stands in the file while ``what`` of the binding runs."""
        return self._number(f"{name[0]}/{name[1]}") << 16 | self._number(what)

    def step(self, mark: int, go_on: Callable[..., Any], *values: Any) -> Any:
        """Calls code of a binding, which does not wait for anything."""
        running = self._now
        before = running[0]
        running[0] = mark
        try:
            return go_on(*values)
        except MemoryError:
            self._short_of_memory(mark)
            raise
        finally:
            if _forks != self._forks:
                os._exit(0)  # a child that the code has forked, and that has come back: it is not the identity
            running[0] = before

    def watch_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tasks that are started by code of a binding count as code of that binding."""
        running = self._now

        def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            mark = running[0]
            if mark:
                coroutine = _MarkedCoroutine(_without_exits(coroutine), mark, self)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(make)

    def _number(self, name: str) -> int:
        """0, which blames nobody, when there is no room for more names."""
        number = self._names.get(name)
        if number is None:
            line = name.encode() + b"\n"
            if self._end + len(line) > _SIZE:
                return 0
            self._map[self._end : self._end + len(line)] = line
            self._end += len(line)
            number = self._names[name] = len(self._names) + 1
        return number

    def _short_of_memory(self, mark: int) -> None:
        """Code of a binding got no memory. Soon, when what it had is free again, it is known how much that was."""
        if self._memory and not self._checking:
            self._checking = True
            self._loop.call_later(_RELEASE_SECONDS, self._end_if_scarce, mark)

    def _end_if_scarce(self, mark: int) -> None:
        """Ends the process while it can when nothing came free: soon nobody in it could work."""
        self._checking = False
        gc.collect()
        if memory_in_use() > _SCARCE * self._memory:
            self._now[0] = mark
            os._exit(EXIT_MEMORY)

    # ── the processes before this one ────────────────────────────────────────────────────────────

    def _mapped(self) -> mmap.mmap:
        """A new file, all zeros. A disk that has no room for it costs the blame, and nothing else."""
        try:
            self._running.unlink(missing_ok=True)
            with self._running.open("x+b") as file:
                os.posix_fallocate(file.fileno(), 0, _SIZE)  # writing to a page without a place on the disk is deadly
                return mmap.mmap(file.fileno(), _SIZE)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._running, error.strerror)
            return mmap.mmap(-1, _SIZE)

    def _remember(self, fault: str, hung: bool) -> list[Crash]:
        now = self._wall()
        try:
            known = msgspec.json.decode(self._file.read_bytes(), type=list[Crash])
        except (OSError, *UNDECODABLE):
            known = []
        deaths = [death for death in known if now - WINDOW < death.at <= now][-_KEPT:]
        culprit = self._read_marker() if fault else None
        if culprit is not None:
            (protocol, instance), place = culprit
            if fault.startswith(f"exit code {EXIT_MEMORY}"):
                fault = "it had no memory left"
            deaths.append(Crash(protocol, instance, place, fault, now, hung))
        if deaths != known:
            temporary = self._file.with_name(f"{self._file.name}.tmp")
            try:
                temporary.write_bytes(msgspec.json.encode(deaths))
                temporary.replace(self._file)
            except OSError as error:
                log.warning("%s cannot be written: %s", self._file, error.strerror)
        return deaths

    def _read_marker(self) -> tuple[Name, str] | None:
        """Whose code was running, and what of it; None when no code was, or nobody knows."""
        try:
            content = self._running.read_bytes()
            binding, place = divmod(_MARK.unpack_from(content)[0], 1 << 16)
            names = content[_MARK.size :].rstrip(b"\0").decode().splitlines()
            protocol, _, instance = names[binding - 1].partition("/") if binding else ("", "", "")
            return ((protocol, instance), names[place - 1]) if instance and place else None
        except (OSError, struct.error, UnicodeDecodeError, IndexError):
            return None


class AttributingRunner(CodeRunner):
    """Runs the code of one binding, for ``blame``; None for a process that has nothing but that code."""

    def __init__(self, blame: CrashAttribution | None, name: Name) -> None:
        self._blame = blame
        self._name = name

    def step(self, what: str, code: Callable[[], T]) -> T:
        """What ``code`` returns, which does not wait for anything. ``what`` it is, in words: ``its import``."""
        blame = self._blame
        return code() if blame is None else cast(T, blame.step(blame.mark(self._name, what), code))

    def function(
        self, what: str, function: Callable[..., Coroutine[Any, Any, T]]
    ) -> Callable[..., Coroutine[Any, Any, T]]:
        """The same async function, watched whenever it runs."""
        if self._blame is None:
            return function
        blame, mark = self._blame, self._blame.mark(self._name, what)

        def call(*arguments: Any) -> Coroutine[Any, Any, T]:
            return _MarkedCoroutine(function(*arguments), mark, blame)

        return call


class _MarkedCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine that is marked during each of its steps."""

    __slots__ = ("_coroutine", "_mark", "_send", "_step")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], mark: int, blame: CrashAttribution) -> None:
        self._coroutine = coroutine
        self._mark = mark
        self._send = coroutine.send
        self._step = blame.step

    def send(self, value: Any) -> Any:
        return self._step(self._mark, self._send, value)

    def throw(self, *exception: Any) -> Any:
        return self._step(self._mark, self._coroutine.throw, *exception)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # has all that is needed of a generator

    def __iter__(self) -> _MarkedCoroutine:
        return self

    def __next__(self) -> Any:
        return self._step(self._mark, self._send, None)


async def _without_exits(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What would end the process ends the task."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"a task of a protocol has raised {error!r}") from error
