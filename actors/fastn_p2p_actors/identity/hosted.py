"""One binding in this process: a protocol's instance and its way through its life.

Protocol code runs here, so anything may be raised, and nothing that is raised gets any further than a state and the
log. A hook has ``HOOK_SECONDS``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from fastn_p2p_client.binding import Binding
from fastn_p2p_client.errors import HandlerFailed, InvalidConfig, P2PError, ProtocolNotInstalled, StorageFailed
from fastn_p2p_client.handlers import RequestHandler, StreamHandler
from fastn_p2p_client.home import Home
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, Protocol

from ..files import write_atomically
from ..protocols import config_of, load
from ..store import CREATED
from .blame import Blame, Death, Watch
from .messages import BindingState

__all__ = ["HOOK_SECONDS", "START_SECONDS", "Hosted", "check_binding", "check_class", "delete_binding"]

HOOK_SECONDS: Final = 5.0
START_SECONDS: Final = 12.0
"""For all that happens until a binding is active: the supervisor waits 15 seconds for the identity's process."""
_ABANDON_SECONDS: Final = 0.5
"""How long a hook that has been cancelled is waited for."""
_MAX_REASON: Final = 400

log = logging.getLogger(__name__)

T = TypeVar("T")


class Hosted:
    """Made stopped; ``start`` loads and activates it.

    Attributes:
        binding: what the dispatcher needs, once it is active.
        access: who may use it, once it is active; never empty then.
        state: ``starting``, ``serving`` or ``failed: …``.
    """

    def __init__(
        self,
        identity: str,
        key: PublicKey,
        protocol: str,
        instance: str,
        workspace: Path,
        code: str = "",
        home: Home | None = None,
        blame: Blame | None = None,
    ) -> None:
        self.identity = identity
        self.key = key
        self.protocol = protocol
        self.instance = instance
        self.workspace = workspace
        self.binding: Binding | None = None
        self.access: tuple[str, ...] = ()
        self.state = "starting"
        self._where = code
        self._home = home
        self._code: Protocol | None = None
        self._watch = Watch(blame, (protocol, instance))

    @property
    def name(self) -> tuple[str, str]:
        return self.protocol, self.instance

    def describe(self) -> BindingState:
        return BindingState(self.protocol, self.instance, self.access, self.state)

    def failed(self, error: P2PError) -> None:
        self._failed(str(error))

    def excluded(self, deaths: list[Death]) -> None:
        """It is not started, since it has ended the processes before this one."""
        last = deaths[-1]
        self._failed(
            f"it has ended the identity's process {len(deaths)} times, the last time in {last.place} ({last.ending}); "
            f"`fastn-p2p start {self.identity} {self.protocol} {self.instance}` tries it again"
        )

    def _failed(self, reason: str) -> None:
        self.state = f"failed: {reason}"[:_MAX_REASON]
        log.error("%s (%s) of %s is not served: %s", self.protocol, self.instance, self.identity, reason)

    async def start(self, config: bytes, allow: tuple[str, ...]) -> Binding:
        """Load the protocol, check its config and activate it.

        Raises:
            ProtocolNotInstalled, InvalidConfig: as they say.
            HandlerFailed: its code raised something, or took too long.
            StorageFailed: its workspace cannot be written to.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                code = await _instantiate(self._context(), config, self._where, self._watch)
                handler, streams = _handlers(self.protocol, self.identity, code)
                if not (self.workspace / CREATED).exists():
                    await self._hook("on_create", code.on_create)
                    write_atomically(self.workspace / CREATED, b"")
                await self._hook("on_activate", code.on_activate)
        except TimeoutError as error:
            reason = f"its hooks took longer than {START_SECONDS:g} s together"
            raise HandlerFailed(peer=self.identity, protocol=self.protocol, reason=reason) from error
        if handler is not None:
            handler.call = self._watch.function("a request", handler.call)
        if streams is not None:
            streams.call = self._watch.function("a session", streams.call)
        self._code = code
        self.access = _access(code, allow)
        self.binding = Binding(self.identity, self.key, self.protocol, self.instance, handler, streams)
        return self.binding

    async def reload(self, config: bytes, allow: tuple[str, ...]) -> None:
        """Give the running instance a new config and access list. Raises like ``start``; then it has the old ones."""
        code = self._code
        if code is None:
            return
        checked = await _instantiate(self._context(), config, self._where, self._watch)
        before = code.context, code.config
        code.context, code.config = checked.context, checked.config
        try:
            await self._hook("on_reload", code.on_reload)
        except P2PError:
            code.context, code.config = before
            raise
        self.access = _access(code, allow)

    async def stop(self) -> None:
        """Deactivate it. What its code raises ends up in the log."""
        code, self._code, self.binding = self._code, None, None
        if code is not None:
            try:
                await self._hook("on_deactivate", code.on_deactivate)
            except HandlerFailed as error:
                log.error("%s (%s) of %s: %s", self.protocol, self.instance, self.identity, error.reason)

    def _context(self) -> BindingContext:
        return BindingContext(self.identity, self.key, self.protocol, self.instance, self.workspace, None, self._home)

    async def _hook(self, name: str, hook: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await _run_hook(self.protocol, self.identity, name, self._watch.function(name, _called(hook)))


async def check_binding(context: BindingContext, config: bytes, where: str = "") -> None:
    """Whether the protocol would start with this config, as far as can be told without starting it.

    Raises:
        ProtocolNotInstalled, InvalidConfig, HandlerFailed: as ``Hosted.start``.
    """
    code = await _instantiate(context, config, where, Watch(None, (context.protocol, context.instance)))
    _handlers(context.protocol, context.identity, code)


def check_class(protocol: str, load: Callable[[], type[Protocol]]) -> type[Protocol]:
    """The protocol's class, if identities can be given it.

    Raises:
        ProtocolNotInstalled: as it says.
        HandlerFailed: it cannot be loaded, or nothing can be called with it.
    """
    cls = _guarded(protocol, "", "cannot be loaded", load)
    # Handlers are bound methods: of an instance that was not made, since there is no binding to make it for.
    _handlers(protocol, "", cls.__new__(cls))
    return cls


async def delete_binding(context: BindingContext, config: bytes, where: str = "") -> None:
    """Run the protocol's ``on_delete`` in a process that has not activated it.

    Raises:
        ProtocolNotInstalled, InvalidConfig, HandlerFailed: it has not run, or not to its end.
    """
    protocol, identity = context.protocol, context.identity
    cls = _guarded(protocol, identity, "cannot be loaded", lambda: load(protocol, where))
    filled = replace(context, config=config_of(cls, protocol, config))
    code = _guarded(protocol, identity, "cannot be made", lambda: cls(filled))
    await _run_hook(protocol, identity, "on_delete", code.on_delete)


def _handlers(protocol: str, identity: str, code: Protocol) -> tuple[RequestHandler | None, StreamHandler | None]:
    return _guarded(
        protocol,
        identity,
        "has no usable handler",
        lambda: (RequestHandler.of_protocol(code), StreamHandler.of_protocol(code)),
    )


async def _instantiate(context: BindingContext, config: bytes, where: str, watch: Watch) -> Protocol:
    """An instance whose config has been checked; ``context`` comes without one."""
    protocol, identity = context.protocol, context.identity
    cls = _guarded(
        protocol, identity, "cannot be loaded", lambda: watch.step("its import", lambda: load(protocol, where))
    )
    filled = replace(context, config=config_of(cls, protocol, config))
    code = _guarded(protocol, identity, "cannot be made", lambda: watch.step("its making", lambda: cls(filled)))
    try:
        await _bounded(watch.function("on_check", _called(code.on_check)))
    except P2PError:
        raise
    except _TookTooLong as error:
        raise InvalidConfig(protocol=protocol, reason=f"checking it took longer than {HOOK_SECONDS:g} s") from error
    except BaseException as error:
        _let_cancelling_through(error)
        raise InvalidConfig(protocol=protocol, reason=str(error) or type(error).__name__) from error
    return code


def _access(code: Protocol, allow: tuple[str, ...]) -> tuple[str, ...]:
    return allow or (("everyone",) if code.public else ("peers",))


def _guarded(protocol: str, identity: str, what: str, step: Callable[[], T]) -> T:
    """Runs protocol code that is no hook; whatever it raises becomes ``HandlerFailed``."""
    try:
        return step()
    except (ProtocolNotInstalled, InvalidConfig, StorageFailed):
        raise
    except BaseException as error:
        log.error("%s %s", protocol, what, exc_info=error)
        raise _failure(protocol, identity, what, error) from error


def _called(hook: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """The hook as one that is async whatever it is: one that is not fails when it has run, and not before."""

    async def call() -> None:
        await hook()

    return call


async def _run_hook(protocol: str, identity: str, name: str, hook: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await _bounded(hook)
    except _TookTooLong as error:
        reason = f"{name} took longer than {HOOK_SECONDS:g} s"
        raise HandlerFailed(peer=identity, protocol=protocol, reason=reason) from error
    except BaseException as error:
        _let_cancelling_through(error)
        log.error("%s of %s: %s failed", protocol, identity, name, exc_info=error)
        raise _failure(protocol, identity, f"{name} failed", error) from error


class _TookTooLong(Exception):
    """A hook did not return in time."""


async def _bounded(hook: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Raises _TookTooLong in time, also when the hook does not let itself be cancelled: then it is left behind."""
    task = asyncio.create_task(_kept(hook))
    try:
        await asyncio.wait([task], timeout=HOOK_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_ABANDON_SECONDS)
            raise _TookTooLong
    finally:
        task.cancel()
    error = task.result()
    if error is not None:
        raise error


async def _kept(hook: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
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


def _failure(protocol: str, identity: str, what: str, error: BaseException) -> HandlerFailed:
    text = f"{what}: {type(error).__name__}: {error}"
    return HandlerFailed(peer=identity, protocol=protocol, reason=text[:_MAX_REASON])
