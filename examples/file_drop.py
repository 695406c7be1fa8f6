"""An inbox that takes the files of everybody whom the access list admits, up to a size.

    fastn-p2p add-protocol alice --protocol FileTransfer --config '{"inbox": "~/inbox"}' --allow everyone
    python examples/file_drop.py alice

A peer drops files with ``fastn-p2p files put alice report.pdf``, which goes on after an interruption where it was.
Hidden names and programs wait for the owner, who sees them with ``fastn-p2p files offers``.
"""

from __future__ import annotations

import sys
import time

import msgspec

from fastn_p2p_client import P2PError
from fastn_p2p_client.sync import Client

LARGEST = 100 << 20
"""Bytes that are taken in one offer."""


class Offer(msgspec.Struct):
    id: str
    peer: str
    name: str | None
    state: str
    bytes: int


class Offers(msgspec.Struct):
    offers: list[Offer]


def main(identity: str) -> None:
    with Client() as client:
        own = client.identities.get(identity).id52  # only a call of the identity itself may decide
        print(f"serving files as {identity}. Ctrl-C ends it", flush=True)
        while True:
            found = client.call(identity, own, "FileTransfer", request={"type": "offers"}, returns=Offers, retry=True)
            for offer in [each for each in found.offers if each.state == "waiting"]:
                decision = {"type": "decide", "offer": offer.id, "accept": offer.bytes <= LARGEST}
                state = client.call(identity, own, "FileTransfer", request=decision, retry=True)["state"]
                print(f"{state}: {offer.bytes:,} bytes from {offer.name or offer.peer}", flush=True)
            time.sleep(0.5)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except P2PError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
