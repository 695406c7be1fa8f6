"""Shared clients, one for each event loop, and the functions ``call`` and ``connect`` that use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final, TypeVar, overload
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from .client import Client
from .home import Home
from .keys import PublicKey
from .limits import DEFAULT_CALL_TIMEOUT, DEFAULT_INSTANCE
from .session.session import Session
from .tickets import Ticket

T = TypeVar("T")

_shared: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[Home, Client]]] = WeakKeyDictionary()
"""Clients of each event loop by home. Weak on both sides: the event loop holds an open client through its connection,
so the client is freed with the loop."""


async def _close_at_end(client: ref[Client]) -> AsyncGenerator[None, None]:
    """Close the client when the event loop ends: a loop closes its asynchronous generators after all tasks."""
    try:
        yield
    finally:
        if (found := client()) is not None:
            found.close()


def shared_client(home: Home | None = None, *, program: str = "") -> Client:
    """Return the running event loop's client for ``home``. It is closed when the loop ends.

    Args:
        home: default ``$FASTN_HOME``, as it is now, else ``~/.fastn``.
        program: name of the program in ``status``, if the client is made by this call.

    Raises:
        RuntimeError: no event loop is running.
        HomeUnusable: the path of the home is not valid.
    """
    loop = asyncio.get_running_loop()
    clients = _shared.get(loop)
    if clients is None:
        clients = _shared.setdefault(loop, WeakValueDictionary())
    home = home or Home.find()
    client = clients.get(home)
    if client is None:
        client = clients[home] = Client(home, program=program)
        client._keeper = keeper = _close_at_end(ref(client))
        with suppress(StopIteration):
            keeper.__anext__().send(None)  # run it to its yield: from there on the loop knows it
    return client


@overload
async def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = ...,
    request: Any = ...,
    *,
    command: str = ...,
    returns: type[T],
    timeout: float = ...,
    retry: bool = ...,
) -> T: ...
@overload
async def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = ...,
    request: Any = ...,
    *,
    command: str = ...,
    timeout: float = ...,
    retry: bool = ...,
) -> Any: ...
async def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = DEFAULT_INSTANCE,
    request: Any = None,
    *,
    command: str = "",
    returns: Any = Any,
    timeout: float = DEFAULT_CALL_TIMEOUT,
    retry: bool = False,
) -> Any:
    """Call a protocol of ``peer`` and return its reply, like ``Client.call``.

    All calls of one event loop share one client, for the home in ``$FASTN_HOME``. It is closed when the loop ends.

    Args:
        identity: name of the local identity that calls; None for the only one online.
        peer: a ``PublicKey``, an ID52, a ``Ticket`` or its text, or a petname from the address book.
        protocol: name of the protocol, for instance ``"Echo"``.
        instance: name of the protocol's instance at the peer.
        request: a msgspec Struct, a dataclass or JSON-like values, encoded as msgpack; at most 16 MiB.
        command: one of the protocol's commands; empty for its request handler.
        returns: type of the reply; the reply is checked against it.
        timeout: seconds, at most 3600.
        retry: True to send the call again after passing errors; see ``Client.call``.

    Returns:
        The reply as a ``returns``; without ``returns``, plain values.

    Raises:
        ApplicationError: the handler raised it on purpose.
        P2PError: any other error; ``fastn_p2p_client.errors`` lists them.
    """
    return await shared_client().call(
        identity, peer, protocol, instance, request, command=command, returns=returns, timeout=timeout, retry=retry
    )


async def connect(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = DEFAULT_INSTANCE,
    initial: Any = None,
    *,
    timeout: float = DEFAULT_CALL_TIMEOUT,
) -> Session:
    """Open a session with a protocol of ``peer``, like ``Client.connect``, on the client that ``call`` uses.

    Args:
        identity: name of the local identity that opens it; None for the only one online.
        peer: a ``PublicKey``, an ID52, a ``Ticket`` or its text, or a petname from the address book.
        protocol: name of the protocol, for instance ``"FileTransfer"``.
        instance: name of the protocol's instance at the peer.
        initial: value for the handler, encoded like a request; at most 64 KiB.
        timeout: seconds until the handler must have accepted, at most 3600. The session has no time limit.

    Returns:
        An open session. Use it in ``async with``, or close it.

    Raises:
        ApplicationError: the handler rejected the session on purpose.
        P2PError: any other error; ``fastn_p2p_client.errors`` lists them.
    """
    return await shared_client().connect(identity, peer, protocol, instance, initial, timeout=timeout)
