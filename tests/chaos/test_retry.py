"""Retried calls while processes are killed: each has one outcome and is executed once."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client import Client
from tests.chaos.conftest import Daemons
from tests.chaos.process_killer import DISTURBANCE, ProcessKiller
from tests.support.daemons import eventually

CALLS: Final = 3_200
LANES: Final = 64
"""Calls in flight."""
PACE: Final = DISTURBANCE * LANES / CALLS
"""Seconds that a lane takes for a call, so that there are calls through all of it."""

PROGRAM: Final = """
import asyncio, os, sys
from fastn_p2p_client import listen

server = listen("bob")
effects = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)

@server.handle_requests("Count", access="everyone")
async def count(number: int) -> int:
    os.write(effects, b"%d\\n" % number)
    if number % 10 == 0:
        await asyncio.sleep(0.02)
    return -number

asyncio.run(server.serve())
"""


@pytest.fixture
def programs(daemons: Daemons, tmp_path: Path) -> Iterator[list[Path]]:
    """Two that serve bob's Count; the files in which they note what they do."""
    effects = [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as stack:
        for path in effects:
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], env=daemons.bob.env)
            stack.callback(process.wait)
            stack.callback(process.kill)

        def both_are_online() -> bool:
            bindings = [each for identity in daemons.bob.status().identities for each in identity.bindings]
            return any(each.programs == 2 for each in bindings)

        eventually(both_are_online, "both serve")
        yield effects


async def test_calls_are_executed_once_while_processes_are_killed(daemons: Daemons, programs: list[Path]) -> None:
    seed = int(os.environ.get("FASTN_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"FASTN_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    sides = {"alice": daemons.alice, "bob": daemons.bob}
    killer = ProcessKiller(sides, chance)
    outcomes: Counter[int] = Counter()

    async def lane(client: Client, numbers: range) -> None:
        for number in numbers:
            began = time.monotonic()
            reply = await client.call("alice", daemons.peer, "Count", request=number, timeout=60, retry=True)
            assert reply == -number
            outcomes[number] += 1
            await asyncio.sleep(max(0.0, began + PACE - time.monotonic()))

    async with Client(daemons.alice.home) as client:
        disturbing = asyncio.create_task(killer.disturb())
        await asyncio.gather(*(lane(client, range(first, CALLS, LANES)) for first in range(LANES)), disturbing)
    effects = Counter(int(line) for path in programs for line in path.read_text().split())
    print(f"{killer.kills.total()} kills: {dict(killer.kills)}; {effects.total()} effects")
    assert set(killer.kills) == killer.victims, "no process was spared"
    assert len(outcomes) == outcomes.total() == CALLS
    assert {number: count for number, count in effects.items() if count > 1} == {}
    assert len(effects) == CALLS
