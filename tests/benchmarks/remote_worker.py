"""A program that serves carol's protocol: beside its daemon, ``python -m tests.benchmarks.remote_worker HOME``, or over
TLS with a token, ``... ADDRESS TOKEN``. Calls are answered as Echo does, and sessions as Bytes."""

from __future__ import annotations

import sys
from typing import Final

import uvloop

from fastn_p2p_client import Session, listen, listen_remotely

from .flow import Order, draw, encode, pour
from .worker import serve_until_told

__all__ = ["LOCAL", "REMOTE"]

LOCAL: Final = "Local"
REMOTE: Final = "Remote"
"""Protocols that a program and a worker serve."""


async def _echo(request: dict[str, str]) -> dict[str, str]:
    return {"echoed": f"Echo: {request['message']}"}


async def _serve(session: Session, order: Order) -> None:
    if order.do == "read":
        await session.write(encode(await draw(session.read, order)))
    else:
        await pour(session.write, order)


async def _main(place: str, token: str = "") -> None:
    server = listen_remotely(place, token) if token else listen("carol", place)
    protocol = REMOTE if token else LOCAL
    server.handle_requests(protocol, _echo)
    server.handle_streams(protocol, _serve)
    await serve_until_told(server)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
