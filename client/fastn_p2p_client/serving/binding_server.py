"""Programs that serve whoever wants them to: ``serve_all`` and ``BindingServer``.

The owner of an identity declares what a program is to serve: ``fastn-p2p add-protocol alice --protocol Settings
--program``. The program is told of all such bindings, whatever their identity, and follows them: they come and go with
their identities and their owners' words while it runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

import msgspec

from ..client import Client
from ..errors import (
    P2PError,
)
from ..home import Home
from ..ipc import messages as m
from ..ipc.transport.base import TransportName
from ..names import check_name
from ..protocol import (
    BindingContext,
    Protocol,
    request_handlers,
    stream_handlers,
)
from ..retry import Backoff
from .followed_binding import (
    AWAY,
    FollowedBinding,
    ProtocolHandlers,
)
from .handlers import RequestHandler, StreamHandler, check_class
from .registration import (
    BindingRegistration,
    Registrar,
)
from .server import DEFAULT_QUEUE, check_command
from .termination import run_until_signal

__all__ = ["BindingServer", "serve_all"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
Code = TypeVar("Code", bound=type[Protocol])

_WATCH_SECONDS: Final = 120.0
"""The gateway answers sooner, whether there is anything new or not."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_WATCHER_BYTES: Final = 8
_MAX_FAILURES: Final = 100
"""Bindings of which ``status`` is told why they are not served: they must fit a header."""

_bindings: Final = msgspec.msgpack.Decoder(list[m.BindingInfo])

log = logging.getLogger(__name__)


class BindingServer:
    """What one program serves as every identity that has a binding for it; use it inside one event loop.

    ::

        server = serve_all()
        server.protocol(Settings)  # a class, with its hooks; or handlers, as with ``listen``

        @server.handle_requests("Clock")
        async def clock(request: None, context: BindingContext) -> str:
            return now(context.config["zone"])

        server.run()
    """

    def __init__(
        self,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        """
        Args:
            home, program, transport: as for ``Client``.
        """
        self._client = Client(home, program=program, transport=transport)
        self._served: dict[str, ProtocolHandlers] = {}
        self._bindings: dict[tuple[str, str, str], FollowedBinding] = {}
        self._not_loaded_yet: set[str] = set()
        """Protocols of which the bindings are not known yet."""
        self._service: Registrar | None = None
        self.ready = asyncio.Event()
        """Set while every binding of an identity that is online is served, as far as this program can see to it."""

    def protocol(
        self, code: Code, name: str | None = None, *, concurrency: int | None = None, queue: int = DEFAULT_QUEUE
    ) -> Code:
        """Serve a protocol that is a class; also usable as a decorator.

        One instance of it stands for each binding, and its hooks are called as they are in the daemon: ``on_check``
        and, once in the binding's life, ``on_create``; ``on_activate`` when its identity comes online, and
        ``on_deactivate`` when it goes offline or this program ends; ``on_reload`` when its config has changed;
        ``on_delete`` when it is removed.

        Args:
            name: what callers name; by default that of the class.
            concurrency, queue: as for ``Server.handle_requests``, for each binding.

        Raises:
            InvalidHandler: a handler of the class cannot be called.
            ValueError: the protocol is served already, or answers nothing.
        """
        if not request_handlers(code) and not stream_handlers(code):
            raise ValueError(f"{code.__qualname__} answers nothing: mark methods with `@request` or `@stream`")
        check_class(code, _SOME_CONTEXT)
        served = self._new(code.__name__ if name is None else name)
        served.code, served.concurrency, served.queue = code, concurrency, queue
        return code

    @overload
    def handle_requests(
        self,
        protocol: str,
        handler: Handler,
        *,
        command: str = ...,
        concurrency: int | None = ...,
        queue: int | None = ...,
    ) -> Handler: ...
    @overload
    def handle_requests(
        self, protocol: str, *, command: str = ..., concurrency: int | None = ..., queue: int | None = ...
    ) -> Callable[[Handler], Handler]: ...
    def handle_requests(
        self,
        protocol: str,
        handler: Callable[..., Any] | None = None,
        *,
        command: str = "",
        concurrency: int | None = None,
        queue: int | None = None,
    ) -> Any:
        """As ``Server.handle_requests``. Its owner says who may use a binding, or else it is for peers.

        Args:
            handler: may also take a ``BindingContext``: its ``config`` is then the JSON value that the owner gave.
        """

        def register(function: Handler) -> Handler:
            compiled = RequestHandler(function, _SOME_CONTEXT)
            served = self._handlers_of(protocol)
            if check_command(command) in served.requests:
                raise ValueError(f"{protocol} has a handler for {command or 'requests'} already")
            served.requests[command] = compiled
            served.concurrency = served.concurrency if concurrency is None else concurrency
            served.queue = served.queue if queue is None else queue
            return function

        return register if handler is None else register(handler)

    @overload
    def handle_streams(self, protocol: str, handler: Handler) -> Handler: ...
    @overload
    def handle_streams(self, protocol: str) -> Callable[[Handler], Handler]: ...
    def handle_streams(self, protocol: str, handler: Callable[..., Any] | None = None) -> Any:
        """As ``Server.handle_streams``; the handler may also take a ``BindingContext``, last."""

        def register(function: Handler) -> Handler:
            compiled = StreamHandler(function, _SOME_CONTEXT)
            served = self._handlers_of(protocol)
            if served.streams is not None:
                raise ValueError(f"{protocol} has a handler for sessions already")
            served.streams = compiled
            return function

        return register if handler is None else register(handler)

    async def serve(self) -> None:
        """Serve until cancelled, or until ``close`` is called; then take no more, and let what is in flight end.

        There need not be any binding yet, and the daemon may come and go meanwhile. A binding that cannot be served,
        because of its config for instance, is left out: the log and ``fastn-p2p status`` say why.

        Raises:
            DaemonNotRunning, P2PError: why nothing can be served.
        """
        if not self._served:
            raise ValueError("there is nothing to serve: protocol, handle_requests or handle_streams first")
        service = self._service = Registrar(self._client, self.ready, self._refused)
        self._not_loaded_yet = set(self._served)
        try:
            await service.run(self._follow_all(service))
        except GeneratorExit:  # the event loop was closed: nothing can be awaited any more
            raise
        except BaseException:
            await self._end_all()
            raise
        else:
            await self._end_all()
        finally:
            self._service = None
            self._bindings.clear()
            self._client.close()

    async def _end_all(self) -> None:
        self._service = None
        await asyncio.gather(*(binding.end() for binding in self._bindings.values()))

    def run(self) -> None:
        """Serve in an event loop of its own until Ctrl-C, SIGTERM or ``close``, and finish what is in flight.

        A second Ctrl-C or SIGTERM does not wait for that. Programs that have an event loop ``await serve()`` in it.

        Raises:
            UsedElsewhere: an event loop runs here already.
            P2PError: as ``serve``.
        """
        run_until_signal(self.serve, self.close)

    def close(self) -> None:
        """Have ``serve`` return, once what is in flight has ended."""
        if self._service is not None:
            self._service.stop()

    def _new(self, protocol: str) -> ProtocolHandlers:
        check_name(protocol, "a protocol")
        if protocol in self._served:
            raise ValueError(f"{protocol} is served already")
        served = self._served[protocol] = ProtocolHandlers(protocol)
        return served

    def _handlers_of(self, protocol: str) -> ProtocolHandlers:
        served = self._served.get(protocol)
        if served is None:
            return self._new(protocol)
        if served.code is not None:
            raise ValueError(f"{protocol} is served by {served.code.__qualname__} already")
        return served

    # ── following the bindings ───────────────────────────────────────────────────────────────────

    async def _follow_all(self, service: Registrar) -> None:
        await self._client.start()
        async with asyncio.TaskGroup() as group:
            for served in self._served.values():
                group.create_task(self._watch(service, served))

    async def _watch(self, service: Registrar, served: ProtocolHandlers) -> None:
        """Serve what there is of one protocol, and again whenever that has become something else."""
        watcher = os.urandom(_WATCHER_BYTES)
        seen = b""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                question = m.WatchBindings(served.protocol, watcher, seen, self._failures(served.protocol))
                reply, payload = await self._client.control_with_payload(question, timeout=_WATCH_SECONDS)
                if reply.revision != seen:
                    await self._reconcile(service, served, _bindings.decode(payload))
                    seen = reply.revision
                backoff.reset()
            except AWAY:
                await asyncio.sleep(backoff.pause())

    async def _reconcile(self, service: Registrar, served: ProtocolHandlers, infos: list[m.BindingInfo]) -> None:
        wanted = {(served.protocol, info.identity, info.instance): info for info in infos}
        for key, info in wanted.items():
            if key not in self._bindings:
                self._bindings[key] = FollowedBinding(self._client, service, served, info.identity, info.instance)
        mine = {key: binding for key, binding in self._bindings.items() if key[0] == served.protocol}
        outcomes = await asyncio.gather(
            *(binding.reconcile(wanted.get(key)) for key, binding in mine.items()), return_exceptions=True
        )
        for error in filter(None, outcomes):
            raise error
        for key in mine.keys() - wanted.keys():
            del self._bindings[key]
        self._not_loaded_yet.discard(served.protocol)
        if not self._not_loaded_yet:
            service.initial_set_complete()

    def _failures(self, protocol: str) -> dict[str, str]:
        failed = [each for key, each in self._bindings.items() if key[0] == protocol and each.failure]
        return {f"{each.identity}/{each.instance}": each.failure for each in failed[:_MAX_FAILURES]}

    def _refused(self, offered: BindingRegistration, error: P2PError) -> None:
        for binding in self._bindings.values():
            if binding.offered is offered:
                binding.set_failure(error)


_SOME_CONTEXT: Final[Any] = object.__new__(BindingContext)
"""What a handler is checked with before there is a binding."""


def serve_all(home: Home | str | os.PathLike[str] | None = None) -> BindingServer:
    """Begin to serve as every identity of this machine's daemon that has a binding for this program; see
    ``BindingServer``."""
    return BindingServer(home)
