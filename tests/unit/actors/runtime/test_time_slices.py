"""Long loops are split over event loop iterations, and the end of a connection costs only its own entries."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastn_p2p_actors.gateway.binding_watchers import BindingWatchers
from fastn_p2p_actors.network.serving.access_list import AccessList
from fastn_p2p_actors.network.serving.expected_programs import ExpectedPrograms
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.sessions.revocation import SessionRevocation
from fastn_p2p_actors.runtime import time_slices
from tests.support.executed_lines import count_executed_lines
from tests.support.signer import Signer
from tests.support.two_daemons import until


async def test_a_long_loop_lets_others_have_a_turn_whenever_its_time_is_used_up() -> None:
    others, time = 0, SimpleNamespace(now=0.0)

    async def another() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(another())
    seen = []
    async for item in time_slices.in_time_slices(range(100), clock=lambda: time.now):
        seen.append(item)
        time.now += time_slices.SLICE_SECONDS / 10
    assert seen == list(range(100))
    assert 9 <= others <= 11
    task.cancel()


class Relay:
    """Session that may be told to end."""

    def __init__(self) -> None:
        self.at_end: list[Any] = []
        self.failed = False

    def fail(self, _: Exception) -> None:
        self.failed = True
        for each in self.at_end:
            each()


async def test_sessions_of_an_identity_that_goes_end_while_others_have_their_turns() -> None:
    revocation = SessionRevocation(Registry())
    sessions = [Relay() for _ in range(5000)]
    for number, each in enumerate(sessions):
        revocation.add(cast(Any, each), b"gone" if number % 2 else b"stays", b"target", "Echo", "default")
    gone = cast(Any, SimpleNamespace(raw=b"gone", name="alice", sender=object()))
    await revocation.identity_offline(gone)
    assert [each.failed for each in sessions] == [bool(number % 2) for number in range(5000)]


class Sender:
    pid = 1
    gone = False


def registry_of(identities: int) -> tuple[Registry, Sender]:
    """Return a registry in which each identity's process serves Echo, and one program serves Shop of the first."""
    registry, program = Registry(), Sender()
    access = AccessList(("everyone",), cast(Any, None), registry)
    for number in range(identities):
        name = f"identity{number:04}"
        process = cast(Any, Sender())
        identity = OnlineIdentity(name, Signer(name).key, process)
        registry.add_identity(identity)
        registry.serve(identity, "Echo", "default", access, process)
    registry.serve_by_program("identity0000", "Shop", "default", access, cast(Any, program), 5)
    registry.serve_by_program("absent", "Shop", "default", access, cast(Any, program), 5)
    return registry, program


def test_the_end_of_a_program_looks_at_what_it_served_however_many_identities_there_are() -> None:
    counts = []
    for identities in (2, 200):
        registry, program = registry_of(identities)
        counts.append(count_executed_lines(partial(registry.remove_sender, cast(Any, program))))
        assert list(registry.programs()) == []
        first = registry.by_name("identity0000")
        assert first is not None
        assert list(first.bindings) == [("Echo", "default")]
        assert not registry.remove_sender(cast(Any, program))
        assert len(registry) == identities
    assert counts[0] == counts[1]


def test_the_end_of_an_identitys_process_takes_it_offline_and_leaves_its_successor() -> None:
    registry, _ = registry_of(2)
    first = registry.by_name("identity0000")
    assert first is not None
    ended, started = first.sender, cast(Any, Sender())
    assert ended is not None
    successor = OnlineIdentity(first.name, first.key, started)
    registry.add_identity(successor)
    assert {key for key, _ in successor.bindings} == {"Shop"}  # the program goes on with it
    assert registry.remove_sender(ended)
    assert registry.by_name(first.name) is successor
    assert registry.remove_sender(started)
    assert registry.by_name(first.name) is None


async def test_many_changes_of_who_serves_are_written_together(tmp_path: Path) -> None:
    registry, program = registry_of(1)
    looked = 0

    def programs() -> Any:
        nonlocal looked
        looked += 1
        return registry.programs()

    returning = ExpectedPrograms(tmp_path / "programs.json", programs)
    for _ in range(1000):
        returning.changed()
    assert looked == 1
    await until(lambda: looked == 2, "the rest counts together")
    assert "Shop" in (tmp_path / "programs.json").read_text()
    registry.remove_sender(cast(Any, program))
    returning.changed()
    await until(lambda: not (tmp_path / "programs.json").exists(), "nobody serves any more")
    assert looked == 3
    returning.close()


async def test_watchers_share_one_read_of_the_store() -> None:
    board = BindingWatchers()
    reads: list[int] = []

    def read() -> int:
        reads.append(len(reads))
        return len(reads)

    first = [asyncio.ensure_future(board.shared_read("Shop", read)) for _ in range(50)]
    await asyncio.sleep(0)
    board.notify()  # what was read before may be out of date
    second = [asyncio.ensure_future(board.shared_read("Shop", read)) for _ in range(50)]
    assert len(set(await asyncio.gather(*first))) == 1
    assert set(await asyncio.gather(*second)) == {2}
    assert len(reads) == 2
    assert await board.shared_read("Shop", read) == 3
    assert not board._reads
