"""Kills processes of two daemons, one after the other, as chance decides by a seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.support.daemons import Daemon, is_alive
from tests.support.two_daemons import until

from .event_log import parent_of

__all__ = ["DISTURBANCE", "ProcessKiller"]

_BEAT: Final = 0.2
"""Seconds between two kills."""
_SPELL: Final = 3.5
"""Seconds of kills before both daemons are restarted, and after each restart."""
_SPELLS: Final = 3
DISTURBANCE: Final = _SPELLS * _SPELL
"""Seconds that ``disturb`` takes at least."""
_CORE: Final = ("vault", "network", "gateway")
_FORK_SERVER: Final = "fork server"
_MOST: Final = 4
"""Kills of one process in ``_PERIOD`` seconds: more than five, and the supervisor would give it up, as it should."""
_PERIOD: Final = 10.5


class _Victim(NamedTuple):
    side: str
    process: str

    @property
    def label(self) -> str:
        return f"{self.side}'s {self.process}"


class ProcessKiller:
    """Spares the supervisors, and whom they would give up.

    Args:
        sides: the daemons by the name of the identity that each has.

    Attributes:
        victims: the processes, as ``kills`` names them.
        kills: how many there were, by process.
        spared: sides that are left alone at the moment.
    """

    def __init__(self, sides: Mapping[str, Daemon], chance: random.Random) -> None:
        self._sides = sides
        self._chance = chance
        self._killed: defaultdict[_Victim, deque[float]] = defaultdict(lambda: deque(maxlen=_MOST))
        self.victims = {_Victim(side, process).label for side in sides for process in self._processes(side)}
        self.kills: Counter[str] = Counter()
        self.spared: set[str] = set()

    async def disturb(self) -> None:
        """Kill without a pause, for three spells; between them both daemons are restarted, one after the other.

        On a slow machine the last spell goes on until each process was killed once.
        """

        async def strike() -> None:
            while True:
                began = time.monotonic()
                self.strike()
                await asyncio.sleep(max(0.0, began + _BEAT - time.monotonic()))

        striking = asyncio.create_task(strike())
        try:
            for spell in range(_SPELLS):
                if spell:
                    for side in self._chance.sample(sorted(self._sides), len(self._sides)):
                        await self._restart(side)
                await asyncio.sleep(_SPELL)
            await until(lambda: striking.done() or self.kills.keys() == self.victims, "each process was killed")
        finally:
            striking.cancel()

    async def _restart(self, side: str) -> None:
        self.spared.add(side)
        await asyncio.to_thread(self._sides[side].stop)
        await asyncio.to_thread(self._sides[side].start)
        self.forget(side)
        self.spared.discard(side)

    def strike(self) -> None:
        """Kill one process, if there is one that may die."""
        candidates = [_Victim(side, process) for side in self._sides for process in self._processes(side)]
        self._chance.shuffle(candidates)
        candidates.sort(key=lambda each: self.kills[each.label] > 0)  # on a slow machine there are few strikes
        for victim in candidates:
            if victim.side not in self.spared and self._may_die(victim) and self._kill(victim):
                return

    def forget(self, side: str) -> None:
        """Clear the record of kills on this side: its new supervisor has counted no crashes."""
        for victim in list(self._killed):
            if victim.side == side:
                del self._killed[victim]

    def _processes(self, side: str) -> list[str]:
        return [*_CORE, f"identity-{side}", _FORK_SERVER]

    def _ending_with(self, victim: _Victim) -> list[_Victim]:
        """Return the processes that end with the victim: for the fork server, all that it has forked."""
        if victim.process != _FORK_SERVER:
            return [victim]
        return [_Victim(victim.side, process) for process in self._processes(victim.side)]

    def _may_die(self, victim: _Victim) -> bool:
        now = time.monotonic()
        if victim.process == _FORK_SERVER and self._killed[victim] and now - self._killed[victim][-1] < _PERIOD:
            return False
        crashes = [self._killed[each] for each in self._ending_with(victim)]
        return all(len(each) < _MOST or now - each[0] > _PERIOD for each in crashes)

    def _kill(self, victim: _Victim) -> bool:
        """Kill a process; return False if the one that is listed has ended, or is being started (pid 0)."""
        daemon = self._sides[victim.side]
        listed = daemon.processes().get("vault" if victim.process == _FORK_SERVER else victim.process, {})
        pid = int(listed.get("pid", 0))
        if not pid or not is_alive(pid):
            return False
        try:
            pid = parent_of(pid) if victim.process == _FORK_SERVER else pid
            if pid <= 1 or (daemon.process is not None and pid == daemon.process.pid):
                return False
            daemon.remember()
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            return False
        for each in self._ending_with(victim):
            self._killed[each].append(time.monotonic())
        self.kills[victim.label] += 1
        return True
