"""The life of one binding: an instance of its protocol's class, made, checked, activated, reloaded and ended.

The same wherever the class runs. Protocol code may raise anything; nothing that it raises gets any further than a
``P2PError`` and the log. A hook has ``HOOK_SECONDS``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from ..errors import (
    HandlerFailed,
    InvalidConfig,
    P2PError,
    ProtocolNotInstalled,
    StorageFailed,
)
from ..ipc.messages import UNDECODABLE
from ..protocol import (
    BindingContext,
    Protocol,
)
from .handlers import RequestHandler, StreamHandler

__all__ = [
    "HOOK_SECONDS",
    "MAX_REASON",
    "START_SECONDS",
    "CodeRunner",
    "CompiledHandlers",
    "ProtocolLifecycle",
    "check",
    "config_of",
    "delete",
    "describe",
    "handlers_of",
    "load_class",
]

HOOK_SECONDS: Final = 5.0
START_SECONDS: Final = 12.0
"""For all that happens until a binding is active: the daemon waits 15 seconds for an identity's process."""
_ABANDON_SECONDS: Final = 0.5
"""How long a hook that has been cancelled is waited for."""
MAX_REASON: Final = 400
"""Characters of what is said about protocol code that has failed."""
_CREATED: Final = ".created"
"""In the workspace: ``on_create`` has been called."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Hook = Callable[[], Coroutine[Any, Any, None]]
Load = Callable[[], type[Protocol]]
"""Finds the class. Runs its module, which may raise anything."""


class CodeRunner:
    """Runs code of the protocol; whoever wants to know when it runs overrides it."""

    def step(self, what: str, code: Callable[[], T]) -> T:
        """What ``code`` returns, which does not wait for anything. ``what`` it is, in words: ``its import``."""
        return code()

    def function(
        self, what: str, function: Callable[..., Coroutine[Any, Any, T]]
    ) -> Callable[..., Coroutine[Any, Any, T]]:
        """The same async function."""
        return function


_NOBODY: Final = CodeRunner()


class CompiledHandlers(NamedTuple):
    """What a protocol answers with; the first as in ``ServedBinding``."""

    requests: dict[str, RequestHandler]
    streams: StreamHandler | None


class ProtocolLifecycle:
    """Made stopped; ``start`` begins the life, ``stop`` ends it, and both may be called again.

    Attributes:
        code: the instance of the class while it is active.
    """

    def __init__(self, context: BindingContext, load: Load, watcher: CodeRunner = _NOBODY) -> None:
        """
        Args:
            context: all but the config, which comes with ``start`` and ``reload``.
            load: finds the class, each time anew.
            watcher: runs all code of the protocol.
        """
        self._context = context
        self._load = load
        self._watcher = watcher
        self.code: Protocol | None = None

    async def start(self, config: bytes) -> CompiledHandlers:
        """Load the class, check the config, which is JSON, and activate an instance.

        Raises:
            ProtocolNotInstalled, InvalidConfig: as they say.
            HandlerFailed: its code raised something, or took too long.
            StorageFailed: its workspace cannot be written to.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                code = await _instantiate(self._context, config, self._load, self._watcher)
                handlers = handlers_of(self._context, code)
                created = self._context.workspace / _CREATED
                if not created.exists():
                    await self._hook("on_create", code.on_create)
                    _write_mark(created)
                await self._hook("on_activate", code.on_activate)
        except TimeoutError as error:
            reason = f"its hooks took longer than {START_SECONDS:g} s together"
            raise HandlerFailed(peer=self._context.identity, protocol=self._context.protocol, reason=reason) from error
        for request in handlers.requests.values():
            request.call = self._watcher.function("a request", request.call)
        if handlers.streams is not None:
            handlers.streams.call = self._watcher.function("a session", handlers.streams.call)
        self.code = code
        return handlers

    def is_replaced(self) -> bool:
        """Return whether the class is another one than that of the active instance: its package was replaced.

        Raises:
            ProtocolNotInstalled, HandlerFailed: the class cannot be loaded any more.
        """
        if self.code is None:
            return False
        return load_class(self._context, lambda: self._watcher.step("its import", self._load)) is not type(self.code)

    async def reload(self, config: bytes) -> None:
        """Give the active instance a new config. Raises like ``start``; then it has the old one."""
        code = self.code
        if code is None:
            return
        checked = await _instantiate(self._context, config, self._load, self._watcher)
        before = code.context, code.config
        code.context, code.config = checked.context, checked.config
        try:
            await self._hook("on_reload", code.on_reload)
        except P2PError:
            code.context, code.config = before
            raise

    async def stop(self, *, delete: bool = False) -> None:
        """Deactivate it. What its code raises ends up in the log."""
        code, self.code = self.code, None
        if code is None:
            return
        for name, hook in (("on_deactivate", code.on_deactivate), ("on_delete", code.on_delete))[: 2 if delete else 1]:
            try:
                await self._hook(name, hook)
            except HandlerFailed as error:
                context = self._context
                log.error("%s (%s) of %s: %s", context.protocol, context.instance, context.identity, error.reason)

    async def _hook(self, name: str, hook: Hook) -> None:
        await _run_hook(self._context, name, self._watcher.function(name, _called(hook)))


async def check(context: BindingContext, config: bytes, load: Load) -> None:
    """Whether a life would begin with this config, as far as can be told without beginning it.

    Raises:
        ProtocolNotInstalled, InvalidConfig, HandlerFailed: as ``ProtocolLifecycle.start``.
    """
    handlers_of(context, await _instantiate(context, config, load, _NOBODY))


async def delete(context: BindingContext, config: bytes, load: Load) -> None:
    """Run the protocol's ``on_delete`` in a process that has not activated it.

    Raises:
        ProtocolNotInstalled, InvalidConfig, HandlerFailed: it has not run, or not to its end.
    """
    await _run_hook(context, "on_delete", _made(context, config, load).on_delete)


async def describe(context: BindingContext, config: bytes, load: Load) -> str | None:
    """Return what the protocol says about the data in its workspace. Raises like ``delete``."""
    code = _made(context, config, load)
    found: list[str | None] = []

    async def hook() -> None:
        found.append(await code.describe_data())

    await _run_hook(context, "describe_data", hook)
    return found[0]


def _made(context: BindingContext, config: bytes, load: Load) -> Protocol:
    """An instance that is not activated, and whose config was not checked for more than its types."""
    cls = load_class(context, load)
    filled = replace(context, config=config_of(cls, context.protocol, config))
    return _call_protocol_code(context, "cannot be made", lambda: cls(filled))


def load_class(context: BindingContext, load: Load) -> type[Protocol]:
    """Raises ProtocolNotInstalled, or HandlerFailed: it cannot be loaded."""
    return _call_protocol_code(context, "cannot be loaded", load)


def config_of(cls: type[Protocol], protocol: str, text: bytes) -> Any:
    """The config in JSON, empty for ``{}``, as an instance of the protocol's ``Config``.

    Raises:
        InvalidConfig: it does not fit; says which field.
    """
    try:
        return msgspec.json.decode(text or b"{}", type=cls.Config)
    except UNDECODABLE as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from error
    except TypeError as error:  # ``Config`` is no type, or none that can be decoded
        raise InvalidConfig(protocol=protocol, reason=f"its class cannot have a config: {error}") from error


def handlers_of(context: BindingContext, code: Protocol) -> CompiledHandlers:
    """Raises HandlerFailed: nothing can be called with them."""
    return _call_protocol_code(
        context,
        "has no usable handler",
        lambda: CompiledHandlers(RequestHandler.from_protocol(code), StreamHandler.of_protocol(code)),
    )


async def _instantiate(context: BindingContext, config: bytes, load: Load, watcher: CodeRunner) -> Protocol:
    """An instance whose config has been checked; ``context`` comes without one."""
    protocol = context.protocol
    cls = load_class(context, lambda: watcher.step("its import", load))
    filled = replace(context, config=config_of(cls, protocol, config))
    code = _call_protocol_code(context, "cannot be made", lambda: watcher.step("its making", lambda: cls(filled)))
    try:
        await _run_with_timeout(watcher.function("on_check", _called(code.on_check)))
    except P2PError:
        raise
    except _HookTimeout as error:
        raise InvalidConfig(protocol=protocol, reason=f"checking it took longer than {HOOK_SECONDS:g} s") from error
    except BaseException as error:
        _let_cancelling_through(error)
        raise InvalidConfig(protocol=protocol, reason=str(error) or type(error).__name__) from error
    return code


def _call_protocol_code(context: BindingContext, what: str, step: Callable[[], T]) -> T:
    """Runs protocol code that is no hook; whatever it raises becomes ``HandlerFailed``."""
    try:
        return step()
    except (ProtocolNotInstalled, InvalidConfig, StorageFailed):
        raise
    except BaseException as error:
        log.error("%s %s", context.protocol, what, exc_info=error)
        raise _failure(context, what, error) from error


def _called(hook: Hook) -> Hook:
    """The hook as one that is async whatever it is: one that is not fails when it has run, and not before."""

    async def call() -> None:
        await hook()

    return call


async def _run_hook(context: BindingContext, name: str, hook: Hook) -> None:
    try:
        await _run_with_timeout(hook)
    except _HookTimeout as error:
        reason = f"{name} took longer than {HOOK_SECONDS:g} s"
        raise HandlerFailed(peer=context.identity, protocol=context.protocol, reason=reason) from error
    except BaseException as error:
        _let_cancelling_through(error)
        log.error("%s of %s: %s failed", context.protocol, context.identity, name, exc_info=error)
        raise _failure(context, f"{name} failed", error) from error


class _HookTimeout(Exception):
    """A hook did not return in time."""


async def _run_with_timeout(hook: Hook) -> None:
    """Raises _HookTimeout in time, also when the hook does not let itself be cancelled: then it is left behind."""
    task = asyncio.create_task(_catch_all(hook))
    try:
        await asyncio.wait([task], timeout=HOOK_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_ABANDON_SECONDS)
            raise _HookTimeout
    finally:
        task.cancel()
    error = task.result()
    if error is not None:
        raise error


async def _catch_all(hook: Hook) -> BaseException | None:
    """What the hook raises: an exit that a task raised would end the process."""
    try:
        await hook()
    except BaseException as error:
        return error
    return None


def _let_cancelling_through(error: BaseException) -> None:
    """A hook that cancels itself has failed; a task that somebody cancels ends."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


def _failure(context: BindingContext, what: str, error: BaseException) -> HandlerFailed:
    text = f"{what}: {type(error).__name__}: {error}"
    return HandlerFailed(peer=context.identity, protocol=context.protocol, reason=text[:MAX_REASON])


def _write_mark(path: Path) -> None:
    """An empty file that is there after a power cut too. Raises StorageFailed."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StorageFailed(path=str(path), reason=error.strerror or str(error)) from error
