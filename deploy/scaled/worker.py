"""A worker of the scaled setup: squares numbers for an identity's protocol Work, at its NATS server.

python worker.py IDENTITY nats://HOST:4222 [--credentials FILE]
"""

from __future__ import annotations

import argparse
import time

from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.workers import serve_workers


def square(number: int, peer: Peer) -> int:
    """The work: five milliseconds for each call."""
    time.sleep(0.005)
    return number * number


def main() -> None:
    """Work until Ctrl-C or SIGTERM, and finish the calls in flight."""
    parser = argparse.ArgumentParser(description="Work for an identity until Ctrl-C or SIGTERM.")
    parser.add_argument("identity", help="its name at its daemon")
    parser.add_argument("server", help="URL of the NATS server")
    parser.add_argument("--credentials", default="", help="file with the account of workers")
    asked = parser.parse_args()
    serve_workers(asked.server, asked.identity, "Work", square, credentials=asked.credentials, concurrency=4).run()


if __name__ == "__main__":
    main()
