"""Run protocol code within a time limit, and convert what it raises into a ``P2PError``.

Protocol code may raise anything, also ``SystemExit``, and may ignore its cancellation. None of that reaches the
process that runs it: it is logged, and the caller gets ``HandlerFailed``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, TypeVar

from ..errors import HandlerFailed, InvalidConfig, ProtocolNotInstalled, StorageFailed
from ..protocol import BindingContext

HOOK_SECONDS: Final = 5.0
"""Seconds that a hook may take."""
_CANCEL_SECONDS: Final = 0.5
"""Seconds that a cancelled hook may take to end. Afterwards it is abandoned."""
MAX_REASON: Final = 400
"""Characters of the reason why protocol code has failed."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Hook: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class HookTimeout(Exception):
    """Raised when a hook has not returned in time."""


def as_async(hook: Hook) -> Hook:
    """Return an ``async`` function that calls the hook. A hook that is not ``async`` fails after it has run."""

    async def call() -> None:
        await hook()

    return call


async def run_hook(context: BindingContext, name: str, hook: Hook) -> None:
    """Run a hook for at most ``HOOK_SECONDS``.

    Args:
        context: the binding whose hook it is.
        name: the hook's name, for the error.
        hook: the hook.

    Raises:
        HandlerFailed: it has raised an exception, or has not returned in time.
    """
    try:
        await run_with_timeout(hook)
    except HookTimeout as error:
        reason = f"{name} took longer than {HOOK_SECONDS:g} s"
        raise HandlerFailed(peer=context.identity, protocol=context.protocol, reason=reason) from error
    except BaseException as error:
        reraise_if_cancelled(error)
        log.error("%s of %s: %s failed", context.protocol, context.identity, name, exc_info=error)
        raise _handler_failed(context, f"{name} failed", error) from error


async def run_with_timeout(hook: Hook) -> None:
    """Run a hook for at most ``HOOK_SECONDS``, and raise its exception.

    Raises:
        HookTimeout: it has not returned in time. If it does not end when it is cancelled, it is abandoned.
    """
    task = asyncio.create_task(_catch_all(hook))
    try:
        await asyncio.wait([task], timeout=HOOK_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_SECONDS)
            raise HookTimeout
    finally:
        task.cancel()
    error = task.result()
    if error is not None:
        raise error


async def _catch_all(hook: Hook) -> BaseException | None:
    """Return the exception of the hook. A ``SystemExit`` that a task raises would end the process."""
    try:
        await hook()
    except BaseException as error:
        return error
    return None


def reraise_if_cancelled(error: BaseException) -> None:
    """Raise a CancelledError again if this task is being cancelled. Otherwise the hook raised it, and has failed."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


def call_protocol_code(context: BindingContext, problem: str, code: Callable[[], T]) -> T:
    """Call protocol code that is no hook: an import, a constructor, or the compilation of its handlers.

    Args:
        context: the binding whose code it is.
        problem: begins the reason in the error, for instance ``"cannot be loaded"``.
        code: the code. It does not wait.

    Returns:
        The result of the code.

    Raises:
        ProtocolNotInstalled, InvalidConfig, StorageFailed: if the code raises one of them.
        HandlerFailed: if it raises another exception.
    """
    try:
        return code()
    except (ProtocolNotInstalled, InvalidConfig, StorageFailed):
        raise
    except BaseException as error:
        log.error("%s %s", context.protocol, problem, exc_info=error)
        raise _handler_failed(context, problem, error) from error


def _handler_failed(context: BindingContext, what: str, error: BaseException) -> HandlerFailed:
    text = f"{what}: {type(error).__name__}: {error}"
    return HandlerFailed(peer=context.identity, protocol=context.protocol, reason=text[:MAX_REASON])
