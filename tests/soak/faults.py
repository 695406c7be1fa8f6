"""Faults of a round, each of which passes: an address changes, a disk is full, a clock jumps, processes are killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError
from tests.chaos.process_killer import ProcessKiller
from tests.soak.daemons import SoakDaemons, SoakSide
from tests.soak.load import Load, MailTraffic
from tests.support.two_daemons import until_awaited

__all__ = ["Faults"]

_HOUR: Final = 3600.0
_JUMPS: Final = (5 * _HOUR, -5 * _HOUR, 30 * _HOUR, -100 * _HOUR)
_SPELL: Final = 4.0
"""Seconds of a full disk, and of a wrong clock."""
_MAILS: Final = 3
"""Mails in each state of a disk."""
_HEALED: Final = 120.0
"""Seconds in which a call must be answered again after a fault: a machine that has other work is slow."""

_Fault = Callable[[SoakSide, int], Awaitable[None]]


class Faults:
    """The faults, one after the other. The two daemons have them in turn, round by round; kills are at the second one.

    Attributes:
        killer: counts the kills.
    """

    def __init__(self, daemons: SoakDaemons, client: Client, mail: MailTraffic) -> None:
        self._daemons = daemons
        self._client = client
        self._mail = mail
        self.killer = ProcessKiller({"bob": daemons.two.daemon}, random.Random(1))

    async def pass_all(self, number: int, load: Load) -> None:
        """Have each fault that this machine can have, and wait after each until a call is answered. Tell the load."""
        side = self._daemons.one if number % 2 else self._daemons.two
        kinds: list[tuple[str, _Fault]] = [("clock", self._jump), ("kills", self._kill)]
        if side.has_disk:
            kinds.insert(0, ("disk", self._fill))
        if side.host is not None:
            kinds.insert(0, ("address", self._roam))
        for name, have in kinds:
            load.fault = name
            await have(side, number)
            await self.healed()

    async def healed(self) -> None:
        """Wait until a call without ``retry`` is answered."""
        await until_awaited(self._is_answered, "a call is answered after a fault", _HEALED)

    async def _is_answered(self) -> bool:
        try:
            await self._client.call("alice", self._daemons.bob, "Echo", request={"message": "healed"}, timeout=10)
        except P2PError:
            return False
        return True

    async def _roam(self, side: SoakSide, _: int) -> None:
        for _ in range(2):
            await asyncio.to_thread(side.move)
            await self.healed()

    async def _fill(self, side: SoakSide, _: int) -> None:
        try:
            await asyncio.to_thread(side.fill_disk)
            for _ in range(_MAILS):
                await self._mail.send()
            await asyncio.sleep(_SPELL)
        finally:
            side.free_disk()
        for _ in range(_MAILS):
            await self._mail.send()

    async def _jump(self, side: SoakSide, number: int) -> None:
        try:
            side.clock.set(_JUMPS[number % len(_JUMPS)])
            await asyncio.sleep(_SPELL)
        finally:
            side.clock.set(0)

    async def _kill(self, _: SoakSide, __: int) -> None:
        await self.killer.disturb()
        self.killer.forget("bob")
        await asyncio.to_thread(self._daemons.two.daemon.wait_ready)
