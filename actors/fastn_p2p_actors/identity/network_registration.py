"""The identity's standing with the network: announced, and each binding served, again after each reconnection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, ConnectionLost, Overloaded, P2PError
from fastn_p2p_client.ipc.messages import (
    Ack,
    DataMessage,
    ErrorReply,
    RegisterBinding,
    RegisterIdentity,
    UnregisterBinding,
    UnregisterIdentity,
)
from fastn_p2p_client.ipc.request_channel import (
    RequestChannel,
    decode_answer,
)
from fastn_p2p_client.retry import Backoff

from .hosted_binding import HostedBinding

__all__ = ["NetworkRegistration"]

_ASK_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_answer: Final = msgspec.msgpack.Decoder(DataMessage)

log = logging.getLogger(__name__)


class NetworkRegistration:
    """Tells the network what this process serves.

    Args:
        link: to the network; its ``on_connect`` calls ``register_again``.
        hosted: the bindings that are active at the moment.

    Attributes:
        started: to be set once ``hosted`` says what it should.
        outcome: done once the network knows everything, for the first time; fails when it never will.
    """

    def __init__(
        self, link: RequestChannel, identity: str, grant: bytes, hosted: Callable[[], Iterable[HostedBinding]]
    ) -> None:
        self._link = link
        self._identity = identity
        self._grant = grant
        self._hosted = hosted
        self._task: asyncio.Task[None] | None = None
        self.started = asyncio.Event()
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def register_again(self) -> None:
        """The network is there (again) and knows nothing."""
        self.close()
        self._task = asyncio.get_running_loop().create_task(self._register())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def serve(self, hosted: HostedBinding) -> None:
        """Requests for the binding are handed over once this returns. Raises P2PError."""
        await self._ask(RegisterBinding(self._identity, hosted.protocol, hosted.instance, hosted.access, self._grant))

    async def withdraw(self, hosted: HostedBinding) -> None:
        """No more requests come for the binding, unless the network is down. Never raises."""
        await self._tell(UnregisterBinding(self._identity, hosted.protocol, hosted.instance), _ASK_SECONDS)

    async def go_offline(self, timeout: float) -> None:
        """The identity is offline, unless the network is down. May be said again. Never raises.

        What was sent before has arrived when this returns.
        """
        with suppress(P2PError, TimeoutError):
            async with asyncio.timeout(timeout / 2):
                await self._link.drain()  # requests overtake what sessions say
        await self._tell(UnregisterIdentity(self._identity), timeout)

    async def _register(self) -> None:
        """Announces and serves in one go, so that nobody finds the identity online and without its protocols."""
        await self.started.wait()
        waiting = list(self._hosted())
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            announced, *served = await asyncio.gather(
                self._announce(),
                *(self.serve(hosted) for hosted in waiting),
                return_exceptions=True,
            )
            if isinstance(announced, ConnectionLost):
                return  # when the network is back, this starts again
            if isinstance(announced, Overloaded) or (isinstance(announced, P2PError) and not announced.retryable):
                self._finish(announced)
                return
            if announced is None:
                waiting = [
                    hosted
                    for hosted, outcome in zip(waiting, served, strict=True)
                    if not self._is_settled(hosted, outcome)
                ]
                if not waiting:
                    self._finish(None)
                    return
            log.warning("%s cannot be registered yet: %s", self._identity, announced or served)
            await asyncio.sleep(backoff.pause())

    async def _announce(self) -> None:
        self._link.cork()  # one behind the other, the network could have announced it before it reads the rest
        await self._ask(RegisterIdentity(self._identity, self._grant))

    def _is_settled(self, hosted: HostedBinding, outcome: BaseException | None) -> bool:
        """Whether the network has taken the binding, or refused it for good."""
        if outcome is None:
            hosted.state = "serving"
        elif isinstance(outcome, P2PError) and not outcome.retryable:
            hosted.failed(outcome)
        else:
            return False
        return True

    def _finish(self, error: P2PError | None) -> None:
        if not self.outcome.done():
            if error is None:
                self.outcome.set_result(None)
            else:
                self.outcome.set_exception(error)
        elif error is not None:
            log.error("%s cannot be announced again: %s", self._identity, error)

    async def _ask(self, message: msgspec.Struct, timeout: float = _ASK_SECONDS) -> None:
        answer = await self._link.request(message, timeout=timeout)
        reply = decode_answer(_answer, answer.header)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        if not isinstance(reply, Ack):
            raise BadMessage(reason=f"the network answered with {type(reply).__name__}")

    async def _tell(self, message: msgspec.Struct, timeout: float) -> None:
        try:
            await self._ask(message, timeout)
        except P2PError as error:
            log.debug("%s had no effect: %s", type(message).__name__, error)
