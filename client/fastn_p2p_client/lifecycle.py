"""The life of one binding: an instance of its protocol's class, made, checked, activated, reloaded and ended.

The same wherever the class runs. Protocol code may raise anything; nothing that it raises gets any further than a
``P2PError`` and the log. A hook has ``HOOK_SECONDS``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from .errors import HandlerFailed, InvalidConfig, P2PError, ProtocolNotInstalled, StorageFailed
from .handlers import RequestHandler, StreamHandler
from .messages import UNDECODABLE
from .protocol import BindingContext, Protocol

__all__ = ["HOOK_SECONDS", "MAX_REASON", "Handlers", "Lifecycle", "check", "config_of"]

HOOK_SECONDS: Final = 5.0
MAX_REASON: Final = 400
"""Characters of what is said about protocol code that has failed."""
_CREATED: Final = ".created"
"""In the workspace: ``on_create`` has been called."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Load = Callable[[], type[Protocol]]
"""Finds the class. Runs its module, which may raise anything."""


class Handlers(NamedTuple):
    """What a protocol answers with; the first as in ``Binding``."""

    requests: dict[str, RequestHandler]
    streams: StreamHandler | None


class Lifecycle:
    """Made stopped; ``start`` begins the life, ``stop`` ends it, and both may be called again.

    Attributes:
        code: the instance of the class while it is active.
    """

    def __init__(self, context: BindingContext, load: Load) -> None:
        """
        Args:
            context: all but the config, which comes with ``start`` and ``reload``.
            load: finds the class, each time anew.
        """
        self._context = context
        self._load = load
        self.code: Protocol | None = None

    async def start(self, config: bytes) -> Handlers:
        """Load the class, check the config, which is JSON, and activate an instance.

        Raises:
            ProtocolNotInstalled, InvalidConfig: as they say.
            HandlerFailed: its code raised something, or took too long.
            StorageFailed: its workspace cannot be written to.
        """
        code = await _instantiate(self._context, config, self._load)
        handlers = _handlers(self._context, code)
        created = self._context.workspace / _CREATED
        if not created.exists():
            await self._hook("on_create", code.on_create)
            _write_mark(created)
        await self._hook("on_activate", code.on_activate)
        self.code = code
        return handlers

    async def reload(self, config: bytes) -> None:
        """Give the active instance a new config. Raises like ``start``; then it has the old one."""
        code = self.code
        if code is None:
            return
        checked = await _instantiate(self._context, config, self._load)
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

    async def _hook(self, name: str, hook: Callable[[], Awaitable[None]]) -> None:
        await _run_hook(self._context, name, hook)


async def check(context: BindingContext, config: bytes, load: Load) -> None:
    """Whether a life would begin with this config, as far as can be told without beginning it.

    Raises:
        ProtocolNotInstalled, InvalidConfig, HandlerFailed: as ``Lifecycle.start``.
    """
    _handlers(context, await _instantiate(context, config, load))


def config_of(cls: type[Protocol], protocol: str, text: bytes) -> Any:
    """The config in JSON, empty for ``{}``, as an instance of the protocol's ``Config``.

    Raises:
        InvalidConfig: it does not fit; says which field.
    """
    try:
        return msgspec.json.decode(text or b"{}", type=cls.Config)
    except UNDECODABLE as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from error


def _handlers(context: BindingContext, code: Protocol) -> Handlers:
    return _guarded(
        context,
        "has no usable handler",
        lambda: Handlers(RequestHandler.all_of(code), StreamHandler.of_protocol(code)),
    )


async def _instantiate(context: BindingContext, config: bytes, load: Load) -> Protocol:
    """An instance whose config has been checked; ``context`` comes without one."""
    protocol = context.protocol
    cls = _guarded(context, "cannot be loaded", load)
    filled = replace(context, config=config_of(cls, protocol, config))
    code = _guarded(context, "cannot be made", lambda: cls(filled))
    try:
        await _bounded(code.on_check)
    except P2PError:
        raise
    except TimeoutError as error:
        raise InvalidConfig(protocol=protocol, reason=f"checking it took longer than {HOOK_SECONDS:g} s") from error
    except BaseException as error:
        _let_cancelling_through(error)
        raise InvalidConfig(protocol=protocol, reason=str(error) or type(error).__name__) from error
    return code


def _guarded(context: BindingContext, what: str, step: Callable[[], T]) -> T:
    """Runs protocol code that is no hook; whatever it raises becomes ``HandlerFailed``."""
    try:
        return step()
    except (ProtocolNotInstalled, InvalidConfig, StorageFailed):
        raise
    except BaseException as error:
        log.error("%s %s", context.protocol, what, exc_info=error)
        raise _failure(context, what, error) from error


async def _run_hook(context: BindingContext, name: str, hook: Callable[[], Awaitable[None]]) -> None:
    try:
        await _bounded(hook)
    except TimeoutError as error:
        reason = f"{name} took longer than {HOOK_SECONDS:g} s"
        raise HandlerFailed(peer=context.identity, protocol=context.protocol, reason=reason) from error
    except BaseException as error:
        _let_cancelling_through(error)
        log.error("%s of %s: %s failed", context.protocol, context.identity, name, exc_info=error)
        raise _failure(context, f"{name} failed", error) from error


async def _bounded(hook: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(HOOK_SECONDS):
        await hook()


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
