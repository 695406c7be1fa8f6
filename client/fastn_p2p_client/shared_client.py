"""Shared clients, one for each event loop, and the functions ``call`` and ``connect`` that use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import wraps
from typing import Any, Final, cast
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from .client import Client
from .home import Home
from .session.session import Session

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


class _SharedClient:
    """``call`` and ``connect`` of the client for ``$FASTN_HOME`` that all tasks of an event loop share."""

    @wraps(Client.call)
    async def call(self, *arguments: Any, **options: Any) -> Any:
        return await shared_client().call(*arguments, **options)

    @wraps(Client.connect)
    async def connect(self, *arguments: Any, **options: Any) -> Session:
        return await shared_client().connect(*arguments, **options)


SHARED: Final = cast(Client, _SharedClient())
"""Stands for the shared client of whichever event loop runs. It has ``call`` and ``connect`` only."""
call: Final = SHARED.call
connect: Final = SHARED.connect
