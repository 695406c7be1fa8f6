"""Programs that serve every binding declared for them: ``serve_all`` and ``BindingServer``.

The owner of an identity declares that a program serves a protocol: ``fastn-p2p add-protocol alice --protocol Settings
--program``. The program watches these bindings of all identities. While it runs, it starts and stops serving each of
them as identities come online or go offline and owners change their declarations.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final, TypeVar

import msgspec

from ..client import Client
from ..errors import P2PError
from ..home import Home
from ..ipc import messages as m
from ..ipc.transport.base import TransportName
from ..protocol import Protocol, request_handlers, stream_handlers
from ..retry import Backoff
from .async_server import AsyncServer
from .followed_binding import DAEMON_UNAVAILABLE, FollowedBinding
from .handler_registry import ANY_CONTEXT, HandlerRegistry, check_claims
from .handlers import DEFAULT_QUEUE, ProtocolHandlers, check_class
from .registrar import Registrar, local_registrar
from .registration import BindingRegistration

Code = TypeVar("Code", bound=type[Protocol])

_WATCH_SECONDS: Final = 120.0
"""Seconds until a watch request times out. The gateway answers sooner, with or without news."""
_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 1.0
"""Seconds between two watch requests while the daemon is away, at first and at most."""
_WATCHER_BYTES: Final = 8
_MAX_FAILURES: Final = 100
"""Bindings whose failure is reported to ``status``: they must fit into one header."""

_bindings: Final = msgspec.msgpack.Decoder(list[m.BindingInfo])

log = logging.getLogger(__name__)


class BindingServer(AsyncServer, HandlerRegistry):
    """Program that serves every binding declared for it, of any identity. Use it inside one event loop.

    ::

        server = serve_all()
        server.protocol(Settings)  # a class with hooks; or handlers, as with ``listen``

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
            home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.
            program: the name of this program in ``status``, at most 64 characters; by default that of its file.
            transport: ``"native"`` or ``"pyzmq"``; by default ``$FASTN_TRANSPORT``, else ``"native"``.
        """
        self._client = Client(home, program=program, transport=transport)
        AsyncServer.__init__(self)
        HandlerRegistry.__init__(self)
        self._bindings: dict[tuple[str, str, str], FollowedBinding] = {}
        """By protocol, identity and instance."""
        self._not_loaded_yet: set[str] = set()
        """Protocols whose bindings the gateway has not listed yet."""
        self._registrar: Registrar | None = None
        self.ready = asyncio.Event()
        """Set while the network process knows every binding of an online identity, as far as this program can tell."""

    def protocol(
        self,
        code: Code,
        name: str | None = None,
        *,
        concurrency: int | None = None,
        queue: int = DEFAULT_QUEUE,
        claims: str | None = None,
    ) -> Code:
        """Serve a protocol by a class; also usable as a decorator.

        Each binding gets an instance of the class, whose hooks are called as in the daemon: ``on_check`` and, once in
        the binding's life, ``on_create``; ``on_activate`` when its identity comes online; ``on_deactivate`` when the
        identity goes offline or this program ends; ``on_reload`` when its config changes; ``on_delete`` when the owner
        removes it.

        Args:
            code: the protocol class.
            name: the name of the protocol; by default that of the class.
            concurrency: requests of one binding that are handled at once; None for no limit.
            queue: requests of one binding that wait beyond ``concurrency``. Further ones end with ``Overloaded``.
            claims: URL of a store in which calls with ``retry=True`` are claimed: see ``handle_requests``.

        Returns:
            The class.

        Raises:
            InvalidHandler: a handler of the class cannot be called.
            InvalidName: no protocol can have this name.
            ValueError: the protocol is served already, the class has no handler, or the store of claims cannot be used.
        """
        if not request_handlers(code) and not stream_handlers(code):
            raise ValueError(f"{code.__qualname__} answers nothing: mark methods with `@request` or `@stream`")
        check_class(code, ANY_CONTEXT)
        name = code.__name__ if name is None else name
        if (name, None) in self._handlers:
            raise ValueError(f"{name} is served already")
        check_claims(claims)
        handlers = self._handlers_of((name, None))
        handlers.code, handlers.concurrency, handlers.queue, handlers.claims = code, concurrency, queue, claims
        return code

    async def serve(self) -> None:
        """Serve until cancelled or until ``close`` is called; then accept no more requests, and finish those in flight.

        There need not be any binding yet, and the daemon may restart meanwhile. A binding that cannot be served, for
        instance because of its config, is left out: the log and ``fastn-p2p status`` say why.

        Raises:
            DaemonNotRunning: no daemon is running.
            P2PError: another reason why the program cannot serve.
            ValueError: there is no handler.
        """
        if not self._handlers:
            raise ValueError("there is nothing to serve: protocol, handle_requests or handle_streams first")
        registrar = self._registrar = local_registrar(self._client, self.ready, self._on_rejected)
        self._not_loaded_yet = {protocol for protocol, _ in self._handlers}
        try:
            await registrar.run(self._watch_all(registrar))
        except GeneratorExit:  # the event loop was closed: nothing can be awaited any more
            raise
        except BaseException:
            await self._end_all()
            raise
        else:
            await self._end_all()
        finally:
            self._registrar = None
            self._bindings.clear()
            self._client.close()

    async def _end_all(self) -> None:
        self._registrar = None
        await asyncio.gather(*(binding.end() for binding in self._bindings.values()))

    # ── watching the bindings ────────────────────────────────────────────────────────────────────

    async def _watch_all(self, registrar: Registrar) -> None:
        await self._client.start()
        async with asyncio.TaskGroup() as group:
            for (protocol, _), handlers in self._handlers.items():
                group.create_task(self._watch(registrar, protocol, handlers))

    async def _watch(self, registrar: Registrar, protocol: str, handlers: ProtocolHandlers) -> None:
        """Watch the bindings of one protocol, and reconcile what is served with them after each change."""
        watcher = os.urandom(_WATCHER_BYTES)
        seen = b""
        backoff = Backoff(_FIRST_BACKOFF, _LONGEST_BACKOFF)
        while True:
            try:
                request = m.WatchBindings(protocol, watcher, seen, self._failures(protocol))
                reply, payload = await self._client.control_with_payload(request, timeout=_WATCH_SECONDS)
                if reply.revision != seen:
                    await self._reconcile(registrar, protocol, handlers, _bindings.decode(payload))
                    seen = reply.revision
                backoff.reset()
            except DAEMON_UNAVAILABLE:
                await asyncio.sleep(backoff.next_delay())

    async def _reconcile(
        self, registrar: Registrar, protocol: str, handlers: ProtocolHandlers, infos: list[m.BindingInfo]
    ) -> None:
        wanted = {(protocol, info.identity, info.instance): info for info in infos}
        for key, info in wanted.items():
            if key not in self._bindings:
                self._bindings[key] = FollowedBinding(
                    self._client, registrar, handlers, info.identity, protocol, info.instance
                )
        mine = {key: binding for key, binding in self._bindings.items() if key[0] == protocol}
        outcomes = await asyncio.gather(
            *(binding.reconcile(wanted.get(key)) for key, binding in mine.items()), return_exceptions=True
        )
        for error in filter(None, outcomes):
            raise error
        for key in mine.keys() - wanted.keys():
            del self._bindings[key]
        self._not_loaded_yet.discard(protocol)
        if not self._not_loaded_yet:
            registrar.initial_set_complete()

    def _failures(self, protocol: str) -> dict[str, str]:
        """Return why bindings of a protocol are not served, by ``identity/instance``."""
        failed = [each for key, each in self._bindings.items() if key[0] == protocol and each.failure]
        return {f"{each.identity}/{each.instance}": each.failure for each in failed[:_MAX_FAILURES]}

    def _on_rejected(self, registration: BindingRegistration, error: P2PError) -> None:
        for binding in self._bindings.values():
            if binding.registration is registration:
                binding.set_failure(error)


def serve_all(home: Home | str | os.PathLike[str] | None = None) -> BindingServer:
    """Return a ``BindingServer`` that serves every binding declared for this program.

    Args:
        home: the daemon's home directory; by default ``$FASTN_HOME``, else ``~/.fastn``.
    """
    return BindingServer(home)
