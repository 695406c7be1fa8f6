"""Workers behind one identity: start as many as you like, kill any of them, and no job is lost.

    python examples/worker_pool.py work alice
    python examples/worker_pool.py submit PEER 100 [NAME]

Every worker serves the same protocol of ``alice``, and each job goes to the one that is least busy. ``PEER`` is what
the submitting machine calls her, ``NAME`` its identity that submits. A job whose worker is killed runs again in another
one, so it may run twice. Its ``call_id`` stays the same: work that must not be done twice is recorded under it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter

import msgspec

from fastn_p2p_client import Client, P2PError, listen


class Done(msgspec.Struct):
    result: int
    worker: int


def work(identity: str) -> None:
    """Do jobs until Ctrl-C or SIGTERM, and finish those in progress."""
    server = listen(identity)

    @server.handle_requests("Square", access="everyone")
    def square(number: int) -> Done:  # not async: it runs in a thread
        time.sleep(0.02)  # the work
        return Done(number * number, os.getpid())

    print(f"serving Square as {identity}, process {os.getpid()}. Ctrl-C ends it", flush=True)
    server.run()


async def submit(peer: str, jobs: str, identity: str | None = None) -> None:
    """Submit all jobs at once and print the results' sum, and how many each worker has done."""
    async with Client() as client:
        await client.start()  # fails at once if no daemon runs; the calls would wait for one
        done = await asyncio.gather(
            *(
                client.call(identity, peer, "Square", request=number, returns=Done, retry=True)
                for number in range(int(jobs))
            )
        )
    print(sum(each.result for each in done), dict(Counter(each.worker for each in done)))


if __name__ == "__main__":
    try:
        work(sys.argv[2]) if sys.argv[1] == "work" else asyncio.run(submit(*sys.argv[2:5]))
    except P2PError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
