"""Run of a program that serves: its bindings, its connection to the network process, and its handlers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from ..affinity import running_loop
from ..client import Client
from ..errors import ConnectionLost, DaemonBusy, Forbidden, P2PError
from ..ipc import messages as m
from ..ipc.request_channel import RequestChannel
from .dispatcher import Dispatcher
from .handlers import ProtocolHandlers
from .registration import BindingRegistration
from .registration_loop import RegistrationLoop

log = logging.getLogger(__name__)

_DRAIN_SECONDS: Final = 5.0
"""Seconds that requests in flight may take when the program stops serving."""


class Registrar(RegistrationLoop[BindingRegistration]):
    """Run of a program that serves. Create it inside the running event loop.

    Bindings may be added, changed and removed while it runs.

    Args:
        request_grant: requests the permission to serve a binding, by identity, protocol and instance.
        make_channel: makes the connection to the network process.
        ready: set while every binding is registered, as far as this program can tell.
        on_rejected: called with a binding that the network process rejects, and the reason. By default, that ends the
            run.
    """

    def __init__(
        self,
        request_grant: Callable[[str, str, str], Awaitable[m.Grant]],
        make_channel: Callable[..., RequestChannel],
        ready: asyncio.Event,
        on_rejected: Callable[[BindingRegistration, P2PError], object] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._request_grant = request_grant
        self._ready = ready
        self._report_rejected = on_rejected or (lambda registration, error: self.stop(error))
        self._registrations: list[BindingRegistration] = []
        self._is_initial_set_complete = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._dispatcher = Dispatcher(self._send_reply, self._send_session_message, self._receive_descriptor)
        super().__init__(
            make_channel(
                on_message=self._dispatcher.on_message,
                on_connect=self._on_connect,
                on_disconnect=self._on_disconnect,
            )
        )

    async def run(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Serve until ``stop``, until cancelled, or until an error; then finish the requests in flight.

        Args:
            work: runs meanwhile, and is cancelled at the end. An exception from it ends the run.

        Raises:
            P2PError: the reason why the program cannot serve.
        """
        self._channel.open()
        working = self._loop.create_task(work) if work is not None else None
        if working is not None:
            working.add_done_callback(self._on_work_done)
        try:
            await self._ended
        except GeneratorExit:  # the event loop was closed: nothing can be awaited any more
            self._channel.close()
            raise
        except BaseException:
            await self._finish(working)
            raise
        await self._finish(working)

    async def _finish(self, working: asyncio.Task[None] | None) -> None:
        if working is not None:
            working.cancel()
            await asyncio.wait([working])
        await self._drain()

    def stop(self, error: P2PError | None = None) -> None:
        """Have ``run`` return, or raise ``error``. Any thread may call this; in a forked child it has no effect."""
        if running_loop() is not self._loop:
            if self._pid == os.getpid():
                with suppress(RuntimeError):  # the loop has ended, and the run with it
                    self._loop.call_soon_threadsafe(self._stop, error)
            return
        self._stop(error)

    def _stop(self, error: P2PError | None) -> None:
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)

    def _on_work_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._ended.done() and (error := task.exception()) is not None:
            self._ended.set_exception(error)

    # ── bindings ─────────────────────────────────────────────────────────────────────────────────

    async def add(
        self,
        identity: str,
        protocol: str,
        instance: str,
        handlers: ProtocolHandlers,
        access: tuple[str, ...],
        *,
        keeps_state: bool = False,
    ) -> BindingRegistration:
        """Serve a binding from now on. It is registered as soon as the network process can be reached.

        Args:
            identity, protocol, instance: names of the binding.
            handlers: its handlers and their options.
            access: peers that may use it, unless its owner has chosen them.
            keeps_state: whether it keeps what peers send: see ``Protocol.keeps_state``.

        Raises:
            P2PError: the reason why the gateway does not grant it.
        """
        granted = await self._request_grant(identity, protocol, instance)
        if not granted.online:
            log.warning("%s is offline: nothing arrives until `fastn-p2p identity-online %s`", identity, identity)
        registration = BindingRegistration(identity, protocol, instance, handlers, access, granted)
        registration.keeps_state = keeps_state
        registration.open_claims(handlers.claims or "")
        self._dispatcher.add(registration)
        self._registrations.append(registration)
        self._register_soon(registration)
        return registration

    async def update(self, registration: BindingRegistration) -> None:
        """Request a new grant after a change of the owner's declaration, and register again.

        Raises:
            P2PError: the reason why the gateway does not grant it.
        """
        await self._renew_grant(registration)
        self._register_soon(registration)

    def _register_soon(self, registration: BindingRegistration) -> None:
        if registration in self._registrations and registration not in self._pending:
            self._pending.append(registration)
        self._ready.clear()
        if self._channel.connected.is_set() and (self._registering is None or self._registering.done()):
            self.start_registering()

    def initial_set_complete(self) -> None:
        """Note that all bindings known so far were added: ``ready`` is set once all of them are registered."""
        self._is_initial_set_complete = True
        idle = self._registering is not None and self._registering.done()
        if self._channel.connected.is_set() and idle and not self._pending:
            self._ready.set()

    async def remove(self, registration: BindingRegistration) -> None:
        """Stop serving a binding, and finish its requests in flight."""
        self._remove(registration)
        try:
            if self._channel.connected.is_set():
                await self.unregister(registration)
        except P2PError as error:
            log.info("%s was not unregistered: %s", registration, error)
        self._dispatcher.remove(registration)
        await self._dispatcher.wait_for_binding(registration, _DRAIN_SECONDS)
        await registration.close_claims()

    def _remove(self, registration: BindingRegistration) -> None:
        for known in (self._registrations, self._pending):
            if registration in known:
                known.remove(registration)

    async def _renew_grant(self, registration: BindingRegistration) -> None:
        registration.granted = await self._request_grant(
            registration.identity, registration.protocol, registration.instance
        )

    # ── registering ──────────────────────────────────────────────────────────────────────────────

    def _on_connect(self) -> None:
        self._pending = list(self._registrations)
        self.start_registering()

    def _on_disconnect(self) -> None:
        self._ready.clear()
        self.stop_registering()
        self._dispatcher.cancel_all()  # the next network process does not know these correlation ids

    def _registration_of(self, binding: BindingRegistration) -> m.RegisterBinding:
        return binding.message()

    async def _register_pending(self) -> bool:
        later = []
        while self._pending:
            registration = self._pending.pop(0)
            try:
                await self._register_with_valid_grant(registration)
                error = None
            except ConnectionLost:
                raise
            except P2PError as reason:
                error = reason
            if not self._is_resolved(registration, error):
                later.append(registration)
        self._pending = [each for each in dict.fromkeys(later) if each in self._registrations]
        return not self._pending

    async def _register_with_valid_grant(self, registration: BindingRegistration) -> None:
        try:
            await self.register(registration)
        except Forbidden:  # the grant is that of an earlier daemon
            await self._renew_grant(registration)
            if registration in self._registrations:
                await self.register(registration)

    def _on_rejected(self, binding: BindingRegistration, error: P2PError) -> None:
        self._remove(binding)
        self._report_rejected(binding, error)

    def _on_registered(self) -> None:
        if self._is_initial_set_complete:
            self._ready.set()

    # ── serving, and its end ─────────────────────────────────────────────────────────────────────

    def _send_reply(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._channel.answer(correlation, header, payload)
        except P2PError as error:
            log.warning("a reply was lost: %s", error)

    def _send_session_message(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._channel.send(correlation, header, payload, credited=True)

    async def _receive_descriptor(self, token: bytes) -> int:
        return await self._channel.receive_descriptor(token)

    async def _drain(self) -> None:
        self._ready.clear()
        self.stop_registering()
        try:
            if self._channel.connected.is_set():
                for each in self._registrations:
                    await self.unregister(each)
            await self._dispatcher.drain(_DRAIN_SECONDS)
            if self._channel.connected.is_set():
                await self._channel.drain()
        except P2PError as error:
            log.info("the daemon ended before this program: %s", error)
        finally:
            self._dispatcher.close()
            self._channel.close()
            await asyncio.gather(*(each.close_claims() for each in self._registrations))


def local_registrar(
    client: Client,
    ready: asyncio.Event,
    on_rejected: Callable[[BindingRegistration, P2PError], object] | None = None,
) -> Registrar:
    """Return a registrar for the daemon of this machine.

    Args:
        client: the program's connection to the daemon, for the gateway.
        ready, on_rejected: those of ``Registrar``.
    """

    async def request_grant(identity: str, protocol: str, instance: str) -> m.Grant:
        try:
            return await client.control(m.RequestGrant(identity, protocol, instance))
        except ConnectionLost:  # the connection to the network process may stand: try again
            raise DaemonBusy(actor="gateway") from None

    make_channel = partial(
        RequestChannel, partial(client.home.find_mailbox, "network"), "network", transport=client.transport
    )
    return Registrar(request_grant, make_channel, ready, on_rejected)
