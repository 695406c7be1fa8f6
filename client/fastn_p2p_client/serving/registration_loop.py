"""Loop that registers bindings with the network process, again after each reconnection.

Programs and identity processes both register through it; identity processes also announce their identity.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from ..errors import ConnectionLost, P2PError
from ..ipc import messages as m
from ..ipc.request_channel import RequestChannel, check_reply, decode_answer
from ..retry import Backoff

REQUEST_SECONDS: Final = 5.0
"""Seconds until a request to the network process times out."""
_FIRST_BACKOFF: Final = 0.05
_LONGEST_BACKOFF: Final = 1.0
"""Seconds between two attempts to register, at first and at most."""

DATA_MESSAGE: Final = msgspec.msgpack.Decoder(m.DataMessage)
"""Decoder of what the network process replies."""


class NamedBinding(Protocol):
    """Binding that can be registered."""

    @property
    def identity(self) -> str:
        """Name of the identity."""
        ...

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        ...

    @property
    def instance(self) -> str:
        """Name of the instance."""
        ...


Binding = TypeVar("Binding", bound=NamedBinding)


class RegistrationLoop(ABC, Generic[Binding]):
    """Registers bindings with the network process, until it has accepted or rejected each of them.

    A binding is pending until then. Errors that are ``retryable`` are retried with backoff. When the connection is
    lost, the loop ends: the owner calls ``start_registering`` after the next connection.

    Args:
        channel: the connection to the network process.
    """

    def __init__(self, channel: RequestChannel) -> None:
        self._channel = channel
        self._pending: list[Binding] = []
        self._registering: asyncio.Task[None] | None = None

    def start_registering(self) -> None:
        """Register in the background; start anew if that is going on."""
        self.stop_registering()
        self._registering = asyncio.get_running_loop().create_task(self._register_until_complete())

    def stop_registering(self) -> None:
        """Stop registering. Bindings that are registered stay so."""
        if self._registering is not None:
            self._registering.cancel()

    async def register(self, binding: Binding) -> None:
        """Send one registration. Requests for the binding may arrive once this returns.

        Raises:
            P2PError: the network process has not accepted it.
        """
        await self._request(self._registration_of(binding))

    async def unregister(self, binding: Binding) -> None:
        """Send that the binding is not served any more. No request for it arrives once this returns.

        Raises:
            P2PError: the network process has not answered.
        """
        await self._request(m.UnregisterBinding(binding.identity, binding.protocol, binding.instance))

    async def _register_until_complete(self) -> None:
        backoff = Backoff(_FIRST_BACKOFF, _LONGEST_BACKOFF)
        try:
            while True:
                if await self._register_pending():
                    break
                await asyncio.sleep(backoff.next_delay())
        except ConnectionLost:
            return
        self._on_registered()

    def _is_resolved(self, binding: Binding, error: BaseException | None) -> bool:
        """Return whether the network process has accepted the binding or rejected it for good."""
        if error is None:
            self._on_accepted(binding)
        elif isinstance(error, P2PError) and not error.retryable:
            self._on_rejected(binding, error)
        else:
            return False
        return True

    async def _request(self, message: msgspec.Struct, timeout: float = REQUEST_SECONDS) -> None:
        response = await self._channel.request(message, timeout=timeout)
        check_reply(decode_answer(DATA_MESSAGE, response.header), m.Ack, "the network process")

    @abstractmethod
    def _registration_of(self, binding: Binding) -> m.RegisterBinding:
        """Return the message that registers a binding."""

    @abstractmethod
    async def _register_pending(self) -> bool:
        """Try to register what is pending once. Return whether nothing is pending any more.

        Raises:
            ConnectionLost: the connection to the network process is lost.
        """

    @abstractmethod
    def _on_rejected(self, binding: Binding, error: P2PError) -> None:
        """Called when the network process rejects a binding for good."""

    def _on_accepted(self, binding: Binding) -> None:
        """Called when the network process has accepted a binding."""

    @abstractmethod
    def _on_registered(self) -> None:
        """Called when nothing is pending any more."""
