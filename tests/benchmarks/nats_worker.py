"""A worker of bob, ``python -m tests.benchmarks.nats_worker URL``: Echo as ``EchoOfWorkers``, or 5 ms for each call."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import uvloop

from fastn_p2p_client.workers import serve_workers

from .worker import serve_until_told

__all__ = ["ECHO", "HANDLER_SECONDS", "SLOW"]

ECHO: Final = "EchoOfWorkers"
SLOW: Final = "SlowEchoOfWorkers"
HANDLER_SECONDS: Final = 0.005


async def _echo(request: dict[str, str]) -> dict[str, str]:
    return {"echoed": f"Echo: {request['message']}"}


async def _slow_echo(request: dict[str, str]) -> dict[str, str]:
    await asyncio.sleep(HANDLER_SECONDS)
    return await _echo(request)


async def _main(url: str, protocol: str) -> None:
    slow = protocol == SLOW
    handler: Any = _slow_echo if slow else _echo
    server = serve_workers(url, "bob", protocol, handler, concurrency=1 if slow else None)
    await serve_until_told(server)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
