"""Registration of the identity and its bindings with the network process, repeated after each reconnection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from fastn_p2p_client.errors import ConnectionLost, Overloaded, OwnerAway, P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import (
    RegisterBinding,
    RegisterIdentity,
    ReportWaiting,
    RequestSleep,
    SleepReply,
    UnregisterIdentity,
)
from fastn_p2p_client.ipc.request_channel import RequestChannel, check_reply, decode_answer
from fastn_p2p_client.serving.registration_loop import DATA_MESSAGE, RegistrationLoop

from .hosted_binding import HostedBinding

_REQUEST_SECONDS: Final = 5.0
"""Seconds until a ``RequestSleep`` times out."""

log = logging.getLogger(__name__)


class NetworkRegistration(RegistrationLoop[HostedBinding]):
    """Registers the identity, and with it the bindings that this process serves.

    Args:
        channel: the connection to the network process; its ``on_connect`` calls ``start_registering``.
        identity: the name of the identity.
        grant: the supervisor's permission to register the identity.
        hosted: returns the bindings that are active at the moment.
        listed: returns whether the identity's record may be published to directories and the LAN.

    Attributes:
        started: set by the owner once ``hosted`` returns every binding that is to be served.
        outcome: done once the network process knows everything for the first time, or has said that the vault is
            locked or the owner of a replica away; then registering goes on. Fails if the network process rejects the
            identity.
    """

    def __init__(
        self,
        channel: RequestChannel,
        identity: str,
        grant: bytes,
        hosted: Callable[[], Iterable[HostedBinding]],
        listed: Callable[[], bool],
    ) -> None:
        super().__init__(channel)
        self._identity = identity
        self._grant = grant
        self._hosted = hosted
        self._listed = listed
        self.started = asyncio.Event()
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def unregister(self, binding: HostedBinding) -> None:
        """Send that the binding is not served any more. Never raises: without a network process no request arrives."""
        try:
            await super().unregister(binding)
        except P2PError as error:
            log.debug("%s (%s) was not unregistered: %s", binding.protocol, binding.instance, error)

    async def go_offline(self, timeout: float) -> None:
        """Unregister the identity, unless the network process is down. May be called again. Never raises.

        Messages that were sent before have arrived when this returns.

        Args:
            timeout: seconds.
        """
        with suppress(P2PError, TimeoutError):
            async with asyncio.timeout(timeout / 2):
                await self._channel.drain()  # a request overtakes messages of sessions
        try:
            await self._request(UnregisterIdentity(self._identity), timeout)
        except P2PError as error:
            log.debug("%s was not unregistered: %s", self._identity, error)

    async def report_waiting(self, binding: HostedBinding) -> None:
        """Send how much waits for the owner in a binding. Never raises: it is sent again after each registration."""
        message = ReportWaiting(self._identity, binding.protocol, binding.instance, binding.waiting, binding.problem)
        with suppress(P2PError):
            await self._request(message)

    async def request_sleep(self, activity: int) -> SleepReply:
        """Send a ``RequestSleep``. Raises P2PError."""
        message = RequestSleep(self._identity, activity)
        answer = await self._channel.request(message, timeout=_REQUEST_SECONDS)
        return check_reply(decode_answer(DATA_MESSAGE, answer.header), SleepReply, "the network process")

    def _registration_of(self, binding: HostedBinding) -> RegisterBinding:
        return RegisterBinding(
            self._identity,
            binding.protocol,
            binding.instance,
            binding.access,
            self._grant,
            keeps_state=binding.keeps_state,
            claims_calls=binding.claims_calls,
            stateless=binding.is_stateless,
        )

    async def _register_until_complete(self) -> None:
        await self.started.wait()
        self._pending = list(self._hosted())
        await super()._register_until_complete()

    async def _register_pending(self) -> bool:
        """Register the identity and its bindings in one write, so that no caller finds it online without them."""
        pending = self._pending
        registered, *outcomes = await asyncio.gather(
            self._register_identity(), *(self.register(hosted) for hosted in pending), return_exceptions=True
        )
        for outcome in (registered, *outcomes):
            if isinstance(outcome, ConnectionLost):
                raise outcome
        if isinstance(registered, Overloaded) or (isinstance(registered, P2PError) and not registered.retryable):
            self._finish(registered)
            return True
        if registered is None:
            self._pending = [
                hosted
                for hosted, outcome in zip(pending, outcomes, strict=True)
                if not self._is_resolved(hosted, outcome)
            ]
            if not self._pending:
                return True
        if isinstance(registered, VaultLocked | OwnerAway):
            if not self.outcome.done():
                log.warning("%s is not online: %s", self._identity, registered)
            self._finish(None)
        else:
            log.warning("%s cannot be registered yet: %s", self._identity, registered or outcomes)
        return False

    async def _register_identity(self) -> None:
        self._channel.cork()  # else the network process could register it before it reads its bindings
        await self._request(RegisterIdentity(self._identity, self._grant, self._listed()))

    def _on_accepted(self, binding: HostedBinding) -> None:
        binding.state = "serving"
        if binding.waiting or binding.problem:
            binding.on_waiting()

    def _on_rejected(self, binding: HostedBinding, error: P2PError) -> None:
        binding.failed(error)

    def _on_registered(self) -> None:
        self._finish(None)

    def _finish(self, error: P2PError | None) -> None:
        if not self.outcome.done():
            if error is None:
                self.outcome.set_result(None)
            else:
                self.outcome.set_exception(error)
        elif error is not None:
            log.error("%s cannot be registered again: %s", self._identity, error)
