"""Missing bindings: remembered for a while, and within a limit."""

from __future__ import annotations

import asyncio

from fastn_p2p_actors.network.discovery.missing_bindings import MissingBindings
from tests.support.fast_time import run_fast

ALICE, FIRST, SECOND = b"alice", b"first", b"second"


def test_an_endpoint_is_asked_again_after_a_while() -> None:
    async def run() -> None:
        missing = MissingBindings()
        missing.add(ALICE, FIRST, "Mail", "default")
        await asyncio.sleep(20)
        missing.add(ALICE, SECOND, "Mail", "default")
        assert missing.endpoints(ALICE, "Mail", "default") == {FIRST, SECOND}
        assert missing.endpoints(ALICE, "Mail", "work") == frozenset()
        await asyncio.sleep(20)
        assert missing.endpoints(ALICE, "Mail", "default") == {SECOND}
        await asyncio.sleep(20)
        assert missing.endpoints(ALICE, "Mail", "default") == frozenset()
        assert not missing

    run_fast(run())


def test_callers_cannot_fill_the_memory() -> None:
    async def run() -> None:
        missing = MissingBindings()
        for number in range(5000):
            missing.add(ALICE, FIRST, f"P{number}", "default")
        assert len(missing) <= 1024
        assert missing.endpoints(ALICE, "P4999", "default") == {FIRST}

    run_fast(run())
