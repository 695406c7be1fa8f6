"""Lifecycle of one binding's protocol class: load, create, check, activate, reload, stop.

It is the same in the daemon's identity processes and in programs. An exception of protocol code ends up in the log and
becomes a ``P2PError``; see ``hooks``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from ..errors import HandlerFailed, InvalidConfig, P2PError, StorageFailed, StorageHeld
from ..ipc.messages import UNDECODABLE
from ..protocol import STOPPED, BindingContext, Protocol
from .handlers import ProtocolHandlers
from .hooks import (
    HOOK_SECONDS,
    Hook,
    HookTimeout,
    as_async,
    call_protocol_code,
    reraise_if_cancelled,
    run_hook,
    run_with_timeout,
)

START_SECONDS: Final = 12.0
"""Seconds until a binding is active, all hooks together. The daemon waits 15 seconds for an identity's process."""
_CREATED: Final = ".created"
"""File in the workspace that says that ``on_create`` has returned."""

log = logging.getLogger(__name__)

T = TypeVar("T")

Load: TypeAlias = Callable[[], type[Protocol]]
"""Finds the protocol class. This imports its module, which may raise any exception."""


class CodeRunner:
    """Calls protocol code. A subclass can observe when it runs."""

    def step(self, what: str, code: Callable[[], T]) -> T:
        """Call code that does not wait, and return its result.

        Args:
            what: the code in words, for instance ``"its import"``.
            code: the code.
        """
        return code()

    def function(
        self, what: str, function: Callable[..., Coroutine[Any, Any, T]]
    ) -> Callable[..., Coroutine[Any, Any, T]]:
        """Return an ``async`` function that does what ``function`` does.

        Args:
            what: the function in words, for instance ``"a request"``.
            function: the function.
        """
        return function

    def forwarder(self, what: str, function: Callable[..., T]) -> Callable[..., T]:
        """Return a function that does what ``function`` does, which does not wait.

        Args:
            what: the function in words.
            function: the function.
        """
        return function


_PLAIN_RUNNER: Final = CodeRunner()


class ProtocolLifecycle:
    """Lifecycle of one binding's protocol class. It is stopped at first, and may be started again after a stop.

    Attributes:
        code: the instance of the class while it is active.
    """

    def __init__(self, context: BindingContext, load: Load, runner: CodeRunner = _PLAIN_RUNNER) -> None:
        """
        Args:
            context: the binding, without its config.
            load: finds the class; called again at each start.
            runner: calls all code of the protocol.
        """
        self._context = context
        self._load = load
        self._runner = runner
        self.code: Protocol | None = None
        self._changing = asyncio.Lock()

    async def start(self, config: bytes) -> ProtocolHandlers:
        """Load the class, check the config, and activate an instance.

        Args:
            config: JSON; empty for ``{}``.

        Returns:
            The handlers of the instance.

        Raises:
            ProtocolNotInstalled: there is no such class.
            InvalidConfig: the config does not fit, or ``on_check`` has rejected it.
            HandlerFailed: protocol code has raised an exception or taken too long.
            StorageFailed: the workspace is not writable.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                code = await _instantiate(self._context, config, self._load, self._runner)
                handlers = handlers_of(self._context, code)
                created = self._context.workspace / _CREATED
                if not created.exists():
                    await self._run_hook("on_create", code.on_create)
                    _create_durable_file(created)
                await self._run_hook("on_activate", code.on_activate)
        except TimeoutError as error:
            reason = f"its hooks took longer than {START_SECONDS:g} s together"
            raise HandlerFailed(peer=self._context.identity, protocol=self._context.protocol, reason=reason) from error
        for request in handlers.requests.values():
            runs = self._runner.forwarder if request.forwards else self._runner.function
            request.call = runs("a request", request.call)
        if handlers.streams is not None:
            handlers.streams.call = self._runner.function("a session", handlers.streams.call)
        self.code = code
        return handlers

    def is_replaced(self) -> bool:
        """Return whether the installed class is another one than that of the active instance.

        Raises:
            ProtocolNotInstalled: there is no such class any more.
            HandlerFailed: the class cannot be loaded any more.
        """
        if self.code is None:
            return False
        return load_class(self._context, lambda: self._runner.step("its import", self._load)) is not type(self.code)

    def keeps_state(self) -> bool:
        """Return whether the active instance keeps what peers send: see ``Protocol.keeps_state``.

        Raises:
            HandlerFailed: protocol code has raised an exception.
        """
        code = self.code
        if code is None:
            return False
        return bool(call_protocol_code(self._context, "keeps_state", lambda: code.keeps_state(code.config)))

    def is_stateless(self) -> bool:
        """Return whether any daemon may serve its requests: see ``Protocol.is_stateless``.

        Raises:
            HandlerFailed: protocol code has raised an exception.
        """
        code = self.code
        if code is None:
            return False
        return bool(call_protocol_code(self._context, "is_stateless", lambda: code.is_stateless(code.config)))

    def claims_calls(self) -> bool:
        """Return whether the active instance claims calls: see ``Protocol.claims_calls``.

        Raises:
            HandlerFailed: protocol code has raised an exception.
        """
        code = self.code
        if code is None:
            return False
        return bool(call_protocol_code(self._context, "claims_calls", lambda: code.claims_calls(code.config)))

    async def reload(self, config: bytes) -> None:
        """Give the active instance a new config. After an error it keeps the old one.

        Args:
            config: JSON; empty for ``{}``.

        Raises:
            ProtocolNotInstalled: there is no such class any more.
            InvalidConfig: the config does not fit, or ``on_check`` has rejected it.
            HandlerFailed: protocol code has raised an exception or taken too long.
        """
        async with self._changing:
            await self._reload(config)

    async def _reload(self, config: bytes) -> None:
        code = self.code
        if code is None:
            return
        checked = await _instantiate(self._context, config, self._load, self._runner)
        before = code.context, code.config
        code.context, code.config = checked.context, checked.config
        try:
            await self._run_hook("on_reload", code.on_reload)
        except P2PError:
            code.context, code.config = before
            raise

    async def set_home(self, daemon: str) -> None:
        """Tell the active instance which daemon is its home; empty for this one. Exceptions of its hook are logged."""
        async with self._changing:
            code = self.code
            if code is None:
                return
            is_changed = bool(code.home_elsewhere) != bool(daemon)
            code.home_elsewhere = daemon
            if is_changed:
                await self._run_logged("on_home_changed", code.on_home_changed)

    async def stop(self, reason: str = STOPPED, *, delete: bool = False) -> None:
        """Deactivate the instance. Exceptions of its hooks are logged.

        Args:
            reason: ``Protocol.deactivation_reason``.
            delete: call ``on_delete`` afterwards.
        """
        async with self._changing:
            await self._stop(reason, delete=delete)

    async def _stop(self, reason: str, *, delete: bool) -> None:
        code, self.code = self.code, None
        if code is None:
            return
        code.deactivation_reason = reason
        for name, hook in (("on_deactivate", code.on_deactivate), ("on_delete", code.on_delete))[: 2 if delete else 1]:
            await self._run_logged(name, hook)

    async def _run_logged(self, name: str, hook: Hook) -> None:
        try:
            await self._run_hook(name, hook)
        except HandlerFailed as error:
            context = self._context
            log.error("%s (%s) of %s: %s", context.protocol, context.instance, context.identity, error.reason)

    async def _run_hook(self, name: str, hook: Hook) -> None:
        await run_hook(self._context, name, self._runner.function(name, as_async(hook)))


async def check(context: BindingContext, config: bytes, load: Load) -> None:
    """Check a config without activating the protocol.

    Args:
        context: the binding, without its config.
        config: JSON; empty for ``{}``.
        load: finds the class.

    Raises:
        ProtocolNotInstalled: there is no such class.
        InvalidConfig: the config does not fit, or ``on_check`` has rejected it.
        HandlerFailed: protocol code has raised an exception or taken too long.
    """
    handlers_of(context, await _instantiate(context, config, load, _PLAIN_RUNNER))


async def delete(context: BindingContext, config: bytes, load: Load) -> None:
    """Run a protocol's ``on_delete`` in a process that has not activated it.

    Args:
        context: the binding, without its config.
        config: JSON; empty for ``{}``.
        load: finds the class.

    Raises:
        ProtocolNotInstalled: there is no such class.
        InvalidConfig: the config does not fit.
        StorageFailed, StorageHeld: the hook has raised it, because data that is not in the workspace cannot be deleted.
        HandlerFailed: protocol code has raised another exception or taken too long.
    """
    code = _instantiate_unchecked(context, config, load)
    try:
        await run_hook(context, "on_delete", code.on_delete)
    except HandlerFailed as error:
        if isinstance(error.__cause__, StorageFailed | StorageHeld):
            raise error.__cause__ from None
        raise


async def describe(context: BindingContext, config: bytes, load: Load) -> str | None:
    """Return a protocol's description of the data in its workspace; None if it has none.

    Args:
        context: the binding, without its config.
        config: JSON; empty for ``{}``.
        load: finds the class.

    Raises:
        ProtocolNotInstalled: there is no such class.
        InvalidConfig: the config does not fit.
        HandlerFailed: protocol code has raised an exception or taken too long.
    """
    code = _instantiate_unchecked(context, config, load)
    found: list[str | None] = []

    async def hook() -> None:
        found.append(await code.describe_data())

    await run_hook(context, "describe_data", hook)
    return found[0]


def _instantiate_unchecked(context: BindingContext, config: bytes, load: Load) -> Protocol:
    """Create an instance without calling ``on_check``."""
    cls = load_class(context, load)
    with_config = replace(context, config=config_of(cls, context.protocol, config))
    return call_protocol_code(context, "cannot be made", lambda: cls(with_config))


def load_class(context: BindingContext, load: Load) -> type[Protocol]:
    """Return the protocol class.

    Raises:
        ProtocolNotInstalled: there is no such class.
        HandlerFailed: its import has raised an exception.
    """
    return call_protocol_code(context, "cannot be loaded", load)


def config_of(cls: type[Protocol], protocol: str, text: bytes) -> Any:
    """Decode a config to the ``Config`` of a protocol class.

    Args:
        cls: the protocol class.
        protocol: the name of the protocol, for the error.
        text: JSON; empty for ``{}``.

    Raises:
        InvalidConfig: the config does not fit; the reason names the field.
    """
    try:
        return msgspec.json.decode(text or b"{}", type=cls.Config)
    except UNDECODABLE as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from error
    except TypeError as error:  # ``Config`` is no type, or none that msgspec decodes
        raise InvalidConfig(protocol=protocol, reason=f"its class cannot have a config: {error}") from error


def handlers_of(context: BindingContext, code: Protocol) -> ProtocolHandlers:
    """Compile the handlers of an instance. Raises HandlerFailed if one of them cannot be called."""
    return call_protocol_code(context, "has no usable handler", lambda: ProtocolHandlers.from_protocol(code))


async def _instantiate(context: BindingContext, config: bytes, load: Load, runner: CodeRunner) -> Protocol:
    """Create an instance and check its config. ``context`` has no config yet."""
    protocol = context.protocol
    cls = load_class(context, lambda: runner.step("its import", load))
    with_config = replace(context, config=config_of(cls, protocol, config))
    code = call_protocol_code(context, "cannot be made", lambda: runner.step("its making", lambda: cls(with_config)))
    try:
        await run_with_timeout(runner.function("on_check", as_async(code.on_check)))
    except P2PError:
        raise
    except HookTimeout as error:
        raise InvalidConfig(protocol=protocol, reason=f"checking it took longer than {HOOK_SECONDS:g} s") from error
    except BaseException as error:
        reraise_if_cancelled(error)
        raise InvalidConfig(protocol=protocol, reason=str(error) or type(error).__name__) from error
    return code


def _create_durable_file(path: Path) -> None:
    """Create an empty file that survives a power cut. Raises StorageFailed."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StorageFailed(path=str(path), reason=error.strerror or str(error)) from error
