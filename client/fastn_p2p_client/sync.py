"""The same API without ``await``: blocking twins of ``Client`` and ``call``.

They run on one event loop in a thread of their own, started at the first use; any thread may use them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar, overload

from . import client as _async
from . import messages as m
from .client import DEFAULT_CONTROL_TIMEOUT
from .home import Home
from .keys import PublicKey
from .limits import DEFAULT_CALL_TIMEOUT, DEFAULT_INSTANCE
from .tickets import Ticket

__all__ = ["Client", "call"]

T = TypeVar("T")

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="fastn-p2p", daemon=True).start()
        return loop


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Client:
    """Blocking twin of ``fastn_p2p_client.Client``; any thread may use it."""

    def __init__(self, home: Home | str | os.PathLike[str] | None = None, *, program: str = "") -> None:
        self._client = _async.Client(home, program=program)

    @property
    def home(self) -> Home:
        return self._client.home

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """As ``Client.close``."""

        async def close() -> None:
            self._client.close()

        _run(close())

    def start(self, *, timeout: float = DEFAULT_CONTROL_TIMEOUT) -> None:
        """As ``Client.start``."""
        _run(self._client.start(timeout=timeout))

    def control(
        self, message: m.Control, payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> m.ControlReply:
        """As ``Client.control``."""
        return _run(self._client.control(message, payload, timeout=timeout))

    @overload
    def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = ...,
        request: Any = ...,
        *,
        returns: type[T],
        timeout: float = ...,
    ) -> T: ...
    @overload
    def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = ...,
        request: Any = ...,
        *,
        timeout: float = ...,
    ) -> Any: ...
    def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        request: Any = None,
        *,
        returns: Any = Any,
        timeout: float = DEFAULT_CALL_TIMEOUT,
    ) -> Any:
        """As ``Client.call``."""
        return _run(self._client.call(identity, peer, protocol, instance, request, returns=returns, timeout=timeout))


@overload
def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = ...,
    request: Any = ...,
    *,
    returns: type[T],
    timeout: float = ...,
) -> T: ...
@overload
def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = ...,
    request: Any = ...,
    *,
    timeout: float = ...,
) -> Any: ...
def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = DEFAULT_INSTANCE,
    request: Any = None,
    *,
    returns: Any = Any,
    timeout: float = DEFAULT_CALL_TIMEOUT,
) -> Any:
    """As ``fastn_p2p_client.call``, blocking."""
    return _run(_async.call(identity, peer, protocol, instance, request, returns=returns, timeout=timeout))
