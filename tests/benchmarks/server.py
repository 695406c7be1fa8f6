"""A program that serves what the daemon hosts: Echo; ``python -m tests.benchmarks.server HOME`` (of the callee's
daemon)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import uvloop

from fastn_p2p.protocols.echo import Echo
from fastn_p2p_client import serve_all

from .worker import obey

__all__ = ["PROTOCOL"]

PROTOCOL: Final = "EchoOfPrograms"


async def _main(home: str) -> None:
    server = serve_all(Path(home))
    server.protocol(Echo, PROTOCOL)
    serving = asyncio.create_task(server.serve())
    await server.ready.wait()
    await obey({})
    server.close()
    await serving


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
