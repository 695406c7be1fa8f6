"""A program that serves what the daemon hosts: Echo; ``python -m tests.benchmarks.server HOME TRANSPORT`` (of the
callee's daemon)."""

from __future__ import annotations

import sys
from typing import Final

import uvloop

from fastn_p2p.protocols.echo import Echo
from fastn_p2p_client import BindingServer
from fastn_p2p_client.ipc.transport.base import TransportName, choose_transport

from .worker import serve_until_told

__all__ = ["PROTOCOLS"]

PROTOCOLS: Final[dict[TransportName, str]] = {"native": "EchoOfPrograms", "pyzmq": "EchoOfPyzmqPrograms"}
"""Names under which programs serve it: calls of one name would be spread over the programs of both transports."""


async def _main(home: str, name: str) -> None:
    transport = choose_transport(name)
    server = BindingServer(home, transport=transport)
    server.protocol(Echo, PROTOCOLS[transport])
    await serve_until_told(server)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
