"""Mail: how many one daemon accepts, with a full sync of the disk, and how many get from one daemon to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from fastn_p2p_client.ipc import messages as m

from .processes import cpu_seconds
from .results import Outcome, Statement, Table
from .system import System
from .worker import Worker

__all__ = ["measure"]

_WRITERS: Final = 64
_MAILS: Final = 40
"""From each writer, for one delivery."""
_NOBODY: Final = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
"""An identity that no daemon has: what is sent to it waits."""
_MUCH: Final = 1_000_000_000


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """A round is ``seconds`` of accepting and one delivery."""
    limits = ("max_messages", "max_bytes", "max_sender_messages", "max_sender_bytes", "max_outbox_messages")
    config = msgspec.json.encode(dict.fromkeys((*limits, "max_outbox_bytes"), _MUCH))
    for daemon, identity in ((system.one, "alice"), (system.two, "bob")):
        await daemon.control(m.AddProtocol(identity, "Mail", "bench", ("everyone",)), config)
        stack.push_async_callback(daemon.control, m.RemoveProtocol(identity, "Mail", "bench"))
    mailer = await Worker.start("mailer", "mailer", str(system.one.home), environment=system.environment)
    stack.push_async_callback(mailer.stop)
    await mailer.greeting()
    one, two = await system.one.pids(), await system.two.pids()
    costs = _Costs(
        {
            "program": mailer.pid,
            "network of the sender": one["network"],
            "alice's process": one["identity-alice"],
            "network of the receiver": two["network"],
            "bob's process": two["identity-bob"],
        }
    )
    await mailer.do("deliver", float, to=system.bob, writers=_WRITERS, count=1)
    accepted: list[float] = []
    delivered: list[float] = []
    for number in range(rounds):
        on_progress(f"mail: round {number + 1} of {rounds}")
        before = costs.now()
        rate = await mailer.do("accept", float, to=_NOBODY, writers=_WRITERS, seconds=seconds)
        costs.add("accepted", before, rate * seconds)
        accepted.append(rate)
        before = costs.now()
        delivered.append(await mailer.do("deliver", float, to=system.bob, writers=_WRITERS, count=_MAILS))
        costs.add("delivered", before, _WRITERS * _MAILS)
    return Outcome(
        statements=[Statement.of("accept", accepted), Statement.of("deliver", delivered)],
        tables=[
            Table(
                "CPU milliseconds for a mail",
                ["process", "accepted", "delivered end to end"],
                [[name, *costs.of(name)] for name in costs.names],
                f"{_WRITERS} writers at once, each waits until each of its mails of some 500 bytes is on disk. What is "
                "delivered is accepted first; the clock stops at the receipt of the last one.",
            )
        ],
    )


class _Costs:
    """CPU time of processes, by what it was spent for."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._mails: defaultdict[str, float] = defaultdict(float)

    @property
    def names(self) -> list[str]:
        return list(self._pids)

    def now(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def add(self, what: str, before: Mapping[str, float], mails: float) -> None:
        for name, seconds in self.now().items():
            self._seconds[name, what] += seconds - before[name]
        self._mails[what] += mails

    def of(self, name: str) -> list[str]:
        return [f"{1000 * self._seconds[name, what] / mails:.3f}" for what, mails in self._mails.items()]
