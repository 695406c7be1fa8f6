"""Time limit of a test: a hang ends the test with a report, also where pytest-timeout does not.

pytest-timeout raises an exception in the test, once. ``with subprocess.Popen(...)`` then waits for its child, and
nothing ends that: here the exception comes again, after the child processes were killed. uvloop runs no signal handler
while it waits: here an async test has a deadline in the event loop. Once a test has failed, pytest-timeout does not
watch its teardown: here setup, test and teardown have the limit each. Where no exception can be raised, as in C code
that does not return, the process ends with the stack of every thread on standard error.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import inspect
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psutil
import pytest

__all__ = [
    "pytest_configure",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "pytest_timeout_set_timer",
    "pytest_unconfigure",
]

AGAIN: Final = float(os.environ.get("FASTN_TEST_TIMEOUT_AGAIN", "20"))
"""Seconds from one exception to the next."""
EXCEPTIONS: Final = 3
"""Exceptions until the process ends."""
END: Final = 60.0
"""Seconds for the end of the interpreter, which threads and libraries may hold up."""

_limit = pytest.StashKey[float]()
_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep standard error as it is while nothing captures it."""
    config.stash[_stderr] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Limit the time of the interpreter's end. A worker of xdist waits for the others, until xdist ends it."""
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(END, exit=True, file=sys.__stderr__ or 2)


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Note the limit, and keep pytest-timeout from watching the test itself."""
    item.stash[_limit] = settings.timeout
    return True


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with _watched(item):
        return (yield)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    more = 0.0
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and _limit in item.stash:
        item.obj, more = _limited(item.obj, item.stash[_limit]), AGAIN
    with _watched(item, more):
        return (yield)


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with _watched(item):
        return (yield)


@contextmanager
def _watched(item: pytest.Item, more: float = 0.0) -> Iterator[None]:
    """Watch one phase of the test. ``more``: seconds that the event loop has to end the test itself."""
    limit = item.stash.get(_limit, 0.0)
    exceptions = 0

    def on_alarm(_number: int, _frame: object) -> None:
        nonlocal exceptions
        exceptions += 1
        if exceptions > 1:
            _kill_children()
        pytest.fail(f"Timeout: the test takes more than {limit:g} s")

    if limit:
        faulthandler.dump_traceback_later(limit + more + EXCEPTIONS * AGAIN, exit=True, file=item.config.stash[_stderr])
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, limit + more, AGAIN)
    try:
        yield
    finally:
        if limit:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.cancel_dump_traceback_later()


def _limited(test: Callable[..., Awaitable[None]], limit: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def in_time(*arguments: object, **named: object) -> None:
        async with asyncio.timeout(limit):
            await test(*arguments, **named)

    return in_time


def _kill_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
