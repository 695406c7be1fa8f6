"""``python -m tests.lab.handshake_flood RELAY ENDPOINT``: dial an endpoint through a relay, again and again.

It prints how many handshakes were refused, after each ten of them, until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from fastn_p2p_actors.network.transport.endpoint import EndpointAddress, NetworkEndpoint
from fastn_p2p_client.errors import PeerUnreachable

__all__: list[str] = []

_AT_ONCE: Final = 10


async def _main(relay: str, peer: bytes) -> None:
    endpoint = await NetworkEndpoint.bind(os.urandom(32), "internet", None, [relay])
    address = EndpointAddress(peer, (relay,), ())
    refused = 0
    while True:
        ends = await asyncio.gather(*(endpoint.dial(address) for _ in range(_AT_ONCE)), return_exceptions=True)
        refused += sum(isinstance(end, PeerUnreachable) and "refused" in end.reason for end in ends)
        for end in ends:
            if not isinstance(end, BaseException):
                end.close(0, b"")
        print(refused, flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], bytes.fromhex(sys.argv[2])))
