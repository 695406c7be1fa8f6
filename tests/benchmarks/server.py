"""A program that serves what the daemon hosts: Echo; ``python -m tests.benchmarks.server HOME TRANSPORT`` (of the
callee's daemon)."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvloop

from fastn_p2p.protocols.echo import Echo
from fastn_p2p_client import BindingServer
from fastn_p2p_client.ipc.transport.base import TransportName, choose_transport

from .worker import obey

__all__ = ["PROTOCOLS"]

PROTOCOLS: Final[dict[TransportName, str]] = {"native": "EchoOfPrograms", "pyzmq": "EchoOfPyzmqPrograms"}
"""Names under which programs serve it: calls of one name would be spread over the programs of both transports."""


async def _main(home: str, name: str) -> None:
    transport = choose_transport(name)
    server = BindingServer(home, transport=transport)
    server.protocol(Echo, PROTOCOLS[transport])
    serving = asyncio.create_task(server.serve())
    await server.ready.wait()
    await obey({})
    server.close()
    await serving


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
