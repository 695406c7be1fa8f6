"""Load for the scaled setup: call a peer's protocol Work without pause, and print what came of it each five seconds.

    python load.py NAME PEER [--in-flight 32] [--interval 5] [--reports 0]

``NAME`` is the identity that calls, at the daemon of ``FASTN_HOME``. All calls have ``retry=True``.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from contextlib import suppress
from itertools import count

from fastn_p2p_client import Client, P2PError

RIGHT = "answered"
WRONG = "wrong-answer"


async def call(client: Client, name: str, peer: str, outcomes: Counter[str]) -> None:
    """Make one call after the other, and count outcomes: errors by their code."""
    for number in count():
        try:
            answer = await client.call(name, peer, "Work", request=number, returns=int, retry=True)
        except P2PError as error:
            outcomes[error.code] += 1
            await asyncio.sleep(0.1)  # what fails at once shall not fill the processor
        else:
            outcomes[RIGHT if answer == number * number else WRONG] += 1


async def report(outcomes: Counter[str], interval: float, reports: int) -> None:
    """Print calls/s and the errors of each interval, ``reports`` times or for ever."""
    began = time.monotonic()
    for number in count(1):
        await asyncio.sleep(interval)
        now = time.monotonic()
        rate = outcomes.pop(RIGHT, 0) / (now - began)
        errors = ", ".join(f"{code} {times}" for code, times in sorted(outcomes.items()))
        print(f"{rate:,.0f} calls/s, errors: {errors or 'none'}", flush=True)
        outcomes.clear()
        began = now
        if number == reports:
            return


async def main() -> None:
    """Call until Ctrl-C, or until all reports are printed."""
    parser = argparse.ArgumentParser(description="Call a peer's protocol Work without pause.")
    parser.add_argument("name", help="the identity that calls")
    parser.add_argument("peer", help="whom it calls: a name of the address book, or an ID52")
    parser.add_argument("--in-flight", type=int, default=32, help="calls at the same time")
    parser.add_argument("--interval", type=float, default=5, help="seconds between reports")
    parser.add_argument("--reports", type=int, default=0, help="end after so many; 0: go on")
    asked = parser.parse_args()
    outcomes: Counter[str] = Counter()
    async with Client() as client, asyncio.TaskGroup() as group:
        callers = [group.create_task(call(client, asked.name, asked.peer, outcomes)) for _ in range(asked.in_flight)]
        await report(outcomes, asked.interval, asked.reports)
        for each in callers:
            each.cancel()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
