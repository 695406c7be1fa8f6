"""A small ASGI application that peers reach without a port; ``python -m tests.benchmarks.asgi_service HOME`` (of the
callee's daemon)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import uvloop

from fastn_p2p_client.http import AsgiServer

from .load import MESSAGE
from .worker import obey

__all__ = ["INSTANCE"]

INSTANCE: Final = "application"
_BODY: Final = MESSAGE.encode()
_HEADERS: Final = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
]


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served")
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def _main(home: str) -> None:
    server = AsgiServer(_application, "bob", INSTANCE, access="everyone", home=home)
    serving = asyncio.create_task(server.serve())
    await server.wait_ready()
    await obey({})
    server.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
