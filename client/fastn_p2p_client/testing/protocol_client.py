"""One protocol of one peer, and somebody who calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

from ..limits import (
    DEFAULT_CALL_TIMEOUT,
    DEFAULT_INSTANCE,
)
from ..session.session import Session

__all__ = ["ProtocolClient", "SupportsCalls"]

T = TypeVar("T")


class SupportsCalls(Protocol):
    """What can call and connect, as ``Client`` does."""

    async def call(
        self,
        identity: str | None,
        peer: str,
        protocol: str,
        instance: str,
        request: Any,
        *,
        command: str,
        returns: Any,
        timeout: float,
    ) -> Any:
        """As ``Client.call``."""

    async def connect(
        self, identity: str | None, peer: str, protocol: str, instance: str, initial: Any, *, timeout: float
    ) -> Session:
        """As ``Client.connect``."""
        ...


@dataclass(frozen=True, slots=True)
class ProtocolClient:
    """Everything about a call but the request."""

    client: SupportsCalls
    identity: str | None
    """Who calls."""
    peer: str
    """The ID52 of whoever serves."""
    protocol: str
    instance: str = DEFAULT_INSTANCE

    @overload
    async def call(self, request: Any = ..., *, command: str = ..., returns: type[T], timeout: float = ...) -> T: ...
    @overload
    async def call(self, request: Any = ..., *, command: str = ..., timeout: float = ...) -> Any: ...
    async def call(
        self,
        request: Any = None,
        *,
        command: str = "",
        returns: Any = Any,
        timeout: float = DEFAULT_CALL_TIMEOUT,
    ) -> Any:
        """As ``Client.call``."""
        return await self.client.call(
            self.identity,
            self.peer,
            self.protocol,
            self.instance,
            request,
            command=command,
            returns=returns,
            timeout=timeout,
        )

    async def connect(self, initial: Any = None, *, timeout: float = DEFAULT_CALL_TIMEOUT) -> Session:
        """As ``Client.connect``."""
        return await self.client.connect(
            self.identity, self.peer, self.protocol, self.instance, initial, timeout=timeout
        )
