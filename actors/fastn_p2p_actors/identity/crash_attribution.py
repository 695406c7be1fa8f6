"""Attribution of crashes: which binding's code was running when the process ended.

Problem: protocol code can end the process of its identity, and with it all other protocols of that identity, again
after each restart. Idea: while code of a binding runs, its number is in a mapped file (``running_marker``). The next
process reads it. If the process ended by its own fault (it exited, crashed or hung; the supervisor says so), the crash
counts against that binding. After ``CRASH_LIMIT`` crashes in ``WINDOW`` seconds the binding is not started until its
config is written again. ``HANG_LIMIT`` hangs suffice, because they take longer. So a faulty protocol takes the
identity's other protocols down for a moment, not for good. Cost: two writes to memory per step.

Code of a binding is a step of its hooks and handlers, and the import of its module. Tasks that such code starts
belong to it too. Not covered: code that it runs in threads.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.serving.protocol_lifecycle import CodeRunner

from ..runtime.process_setup import memory_in_use
from .running_marker import BindingName, RunningMarker, read_marker

CRASH_LIMIT: Final = 3
"""Crashes within ``WINDOW`` after which a binding is not started."""
HANG_LIMIT: Final = 2
"""Hangs within ``WINDOW`` after which a binding is not started."""
WINDOW: Final = 600.0
"""Seconds for which a crash counts."""
EXIT_MEMORY: Final = 71
"""Exit code of a process that has no memory left, and whose protocols do not release it."""

_KEPT: Final = 64
"""Crashes that are remembered."""
_SCARCE: Final = 0.75
"""Share of the memory limit above which the process ends, once an allocation has failed."""
_RELEASE_SECONDS: Final = 0.1
"""Seconds that protocol code has to release memory after a failed allocation."""

T = TypeVar("T")

log = logging.getLogger(__name__)

_forks = 0
"""Forks between this process and the first one that loaded this module."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Crash(msgspec.Struct, frozen=True):
    """Crash of the process that is attributed to a binding."""

    protocol: str
    instance: str
    place: str
    """Place in the binding's code that was running."""
    ending: str
    """How the process ended."""
    at: float
    """Unix time at which the crash was noticed."""
    hung: bool = False


class CrashAttribution:
    """Marks running code, and knows the crashes of earlier processes. Create it inside the running event loop.

    Args:
        path: path of its files without their suffixes ``.running`` and ``.crashes``.
        fault: how the previous process ended, if that was its own fault; else empty.
        hung: True if the previous process sent no heartbeat.
        memory: bytes of data that this process may have; 0 for no limit.
        wall: return Unix time.
    """

    def __init__(
        self, path: Path, fault: str, *, hung: bool = False, memory: int = 0, wall: Callable[[], float] = time.time
    ) -> None:
        running = path.with_name(f"{path.name}.running")
        self._file = path.with_name(f"{path.name}.crashes")
        self._memory = memory
        self._wall = wall
        self._forks = _forks
        self._loop = asyncio.get_running_loop()
        self._checking = False
        self._crashes = self._load_crashes(running, fault, hung)
        self._marker = RunningMarker(running)
        self._current = self._marker.current

    def limit_memory(self, most: int) -> None:
        """Set the bytes of data that the process may have; 0 for no limit."""
        self._memory = most

    def close(self) -> None:
        """End attribution: no protocol code runs any more, and the process ends in order."""
        self._marker.close()

    def crash_loop(self, name: BindingName, since: float) -> list[Crash]:
        """Return the binding's crashes after ``since`` (Unix time), oldest first; empty if they are below the limits.

        A time in the future comes from a clock that was ahead. It counts as 0, or it would forgive crashes for hours.
        """
        if since > self._wall():
            since = 0.0
        crashes = [each for each in self._crashes if (each.protocol, each.instance) == name and each.at > since]
        return crashes if len(crashes) >= CRASH_LIMIT or sum(each.hung for each in crashes) >= HANG_LIMIT else []

    # ── running code ─────────────────────────────────────────────────────────────────────────────────

    def mark(self, name: BindingName, code_name: str) -> int:
        """Return the mark of a place in the binding's code, for ``step``."""
        return self._marker.mark(name, code_name)

    def running(self) -> BindingName | None:
        """Return the binding whose code is running in the main thread; None if none is."""
        return self._marker.running()

    def step(self, mark: int, function: Callable[..., Any], *values: Any) -> Any:
        """Call code of a binding, which must not wait for anything, and return its result."""
        current = self._current
        before = current[0]
        current[0] = mark
        try:
            return function(*values)
        except MemoryError:
            self._schedule_memory_check(mark)
            raise
        finally:
            if _forks != self._forks:
                os._exit(0)  # a child that the code has forked and that returned here: it is not the identity
            current[0] = before

    def watch_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attribute tasks that code of a binding starts to that binding."""
        current = self._current

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            mark = current[0]
            if mark:
                coroutine = _MarkedCoroutine(_without_exits(coroutine), mark, self)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(make_task)

    def _schedule_memory_check(self, mark: int) -> None:
        """Check the memory in use a little after a failed allocation, when the code may have released some."""
        if self._memory and not self._checking:
            self._checking = True
            self._loop.call_later(_RELEASE_SECONDS, self._exit_if_scarce, mark)

    def _exit_if_scarce(self, mark: int) -> None:
        """Exit if no memory was released, because soon no code in the process could work."""
        self._checking = False
        gc.collect()
        if memory_in_use() > _SCARCE * self._memory:
            self._current[0] = mark
            os._exit(EXIT_MEMORY)

    # ── earlier processes ────────────────────────────────────────────────────────────────────────────

    def _load_crashes(self, running: Path, fault: str, hung: bool) -> list[Crash]:
        """Return the recent crashes, with that of the previous process if it had one, and write them to the file."""
        now = self._wall()
        try:
            known = msgspec.json.decode(self._file.read_bytes(), type=list[Crash])
        except (OSError, *UNDECODABLE):
            known = []
        crashes = [each for each in known if now - WINDOW < each.at <= now][-_KEPT:]
        marked = read_marker(running) if fault else None
        if marked is not None:
            (protocol, instance), code_name = marked
            if fault.startswith(f"exit code {EXIT_MEMORY}"):
                fault = "it had no memory left"
            crashes.append(Crash(protocol, instance, code_name, fault, now, hung))
        if crashes != known:
            temporary = self._file.with_name(f"{self._file.name}.tmp")
            try:
                temporary.write_bytes(msgspec.json.encode(crashes))
                temporary.replace(self._file)
            except OSError as error:
                log.warning("%s cannot be written, so crashes are forgotten: %s", self._file, error.strerror)
        return crashes


class AttributingRunner(CodeRunner):
    """Runs the code of one binding, and marks it while it runs.

    Args:
        attribution: None in a process that runs no other code.
        name: the binding.
    """

    def __init__(self, attribution: CrashAttribution | None, name: BindingName) -> None:
        self._attribution = attribution
        self._name = name

    def step(self, what: str, code: Callable[[], T]) -> T:
        """Call ``code``, which must not wait for anything, and return its result. ``what`` names it: ``its import``."""
        attribution = self._attribution
        return code() if attribution is None else cast(T, attribution.step(attribution.mark(self._name, what), code))

    def function(
        self, what: str, function: Callable[..., Coroutine[Any, Any, T]]
    ) -> Callable[..., Coroutine[Any, Any, T]]:
        """Return the same async function, marked during each of its steps."""
        if self._attribution is None:
            return function
        attribution, mark = self._attribution, self._attribution.mark(self._name, what)

        def call(*arguments: Any) -> Coroutine[Any, Any, T]:
            return _MarkedCoroutine(function(*arguments), mark, attribution)

        return call

    def forwarder(self, what: str, function: Callable[..., T]) -> Callable[..., T]:
        """Return the same function, marked while it runs."""
        if self._attribution is None:
            return function
        return partial(self._attribution.step, self._attribution.mark(self._name, what), function)


class _MarkedCoroutine(Coroutine[Any, Any, Any]):
    """Coroutine that is marked during each of its steps."""

    __slots__ = ("_coroutine", "_mark", "_send", "_step")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], mark: int, attribution: CrashAttribution) -> None:
        self._coroutine = coroutine
        self._mark = mark
        self._send = coroutine.send
        self._step = attribution.step

    def send(self, value: Any) -> Any:
        return self._step(self._mark, self._send, value)

    def throw(self, *exception: Any) -> Any:
        return self._step(self._mark, self._coroutine.throw, *exception)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # it has the methods of a generator that ``await`` needs

    def __iter__(self) -> _MarkedCoroutine:
        return self

    def __next__(self) -> Any:
        return self._step(self._mark, self._send, None)


async def _without_exits(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Turn an exception that would end the process into one that ends the task."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"a task of a protocol raised {error!r}") from error
