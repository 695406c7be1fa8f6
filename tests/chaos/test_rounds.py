"""Forty times, chance decides which process dies. In the end everything is as it was, and nothing has grown."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import Final, NamedTuple

from tests.support.daemons import eventually
from tests.support.processes import open_files, resident

from .conftest import Daemons, StartLoad
from .event_log import fork_server
from .load import Load

ROUNDS: Final = 40
SUPERVISORS: Final = 4
"""How many of them end a whole daemon."""
WARM: Final = 10
"""Rounds after which processes have grown as large as they need to be."""
MOST: Final = 4
"""Kills of one actor in ``PERIOD`` seconds: more than five, and the supervisor would give it up, as it should."""
PERIOD: Final = 10.5
ACTORS: Final = {
    "alice": ("vault", "network", "gateway", "identity-alice"),
    "bob": ("vault", "network", "gateway", "identity-bob"),
}
MORE_DESCRIPTORS: Final = 24
"""The network process keeps an eventfd for each future that was ever pending at the same time."""
MORE_MEMORY: Final = 16 * 1024 * 1024


class Victim(NamedTuple):
    side: str
    actor: str


class Chance:
    """Chooses by a seed, and spares whom the supervisor would give up."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._killed: defaultdict[Victim, deque[float]] = defaultdict(lambda: deque(maxlen=MOST))
        self.candidates = [Victim(side, actor) for side, actors in ACTORS.items() for actor in actors]

    def plan(self) -> list[str]:
        """Round by round, the side whose supervisor dies, or nothing."""
        sides = ["alice", "bob"] * (SUPERVISORS // 2)
        quiet = [""] * (ROUNDS - WARM - SUPERVISORS)
        plan = [*sides, *quiet]
        self._random.shuffle(plan)
        return [*[""] * WARM, *plan]

    def victims(self) -> list[Victim]:
        """Choose one process, or two to kill at the same moment."""
        several = self._random.sample(self.candidates, len(self.candidates))
        count = 2 if self._random.random() < 0.25 else 1
        chosen = eventually(lambda: [victim for victim in several if self._may_die(victim)], "somebody may die")[:count]
        for victim in chosen:
            self._killed[victim].append(time.monotonic())
        return chosen

    def forget(self, side: str) -> None:
        """Clear the record of kills on this side: its new supervisor has counted no crashes."""
        for victim in self.candidates:
            if victim.side == side:
                self._killed[victim].clear()

    def waits(self) -> bool:
        """Return true if the next round waits until calls succeed again."""
        return self._random.random() < 0.6

    def _may_die(self, victim: Victim) -> bool:
        killed = self._killed[victim]
        return len(killed) < MOST or time.monotonic() - killed[0] > PERIOD


def sizes(daemons: Daemons, load: Load) -> dict[str, tuple[int, int]]:
    """Descriptors and bytes of the processes that live through it all, and of those that were not chosen lately."""
    pids = {"program": load.pid}
    for side, actors in ACTORS.items():
        daemon = daemons.side(side)
        assert daemon.process is not None
        pids |= {f"{side}'s supervisor": daemon.process.pid, f"{side}'s fork server": fork_server(daemon)}
        pids |= {f"{side}'s {actor}": daemon.pid(actor) for actor in actors}
    return {name: (open_files(pid), resident(pid)) for name, pid in pids.items()}


def test_nothing_has_grown_after_forty_rounds(daemons: Daemons, start_load: StartLoad) -> None:
    seed = int(os.environ.get("FASTN_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"FASTN_CHAOS_SEED={seed}")
    chance = Chance(seed)
    load = start_load()
    load.mark()
    before: dict[str, tuple[int, int]] = {}
    kills = 0
    for number, side in enumerate(chance.plan()):
        if number == WARM:
            load.assert_calls_succeed()
            before = sizes(daemons, load)
        if side:
            print(f"{number}: {side} supervisor")
            kills += 1
            daemons.side(side).kill()
            daemons.side(side).start()
            chance.forget(side)
        else:
            killed_actors = chance.victims()
            print(f"{number}: {' and '.join(f'{victim.side} {victim.actor}' for victim in killed_actors)}")
            kills += len(killed_actors)
            pids = [daemons.side(victim.side).kill_actor(victim.actor) for victim in killed_actors]
            for victim, pid in zip(killed_actors, pids, strict=True):
                daemons.side(victim.side).wait_actor(victim.actor, not_pid=pid)
        if chance.waits():
            load.assert_calls_succeed()
    load.assert_calls_succeed()
    print(f"{kills} processes killed; {load.statistics.replies} replies, {load.failures}")

    def grown() -> list[str]:
        return [
            f"{name}: {before[name][0]} → {files} descriptors, {before[name][1] >> 10} → {memory >> 10} KiB"
            for name, (files, memory) in sizes(daemons, load).items()
            if files > before[name][0] + MORE_DESCRIPTORS or memory > before[name][1] + MORE_MEMORY
        ]

    with suppress(AssertionError):
        eventually(lambda: not grown(), "memory of calls in flight is given back")
    assert grown() == []
    for daemon in (daemons.alice, daemons.bob):
        eventually(lambda d=daemon: all(each["state"] == "ready" for each in d.tree()["processes"]), "all are ready")  # type: ignore[misc]
    statistics = load.stop()
    assert statistics.replies > sum(statistics.failures.values())
