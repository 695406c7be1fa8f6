"""Rounds of mixed load with faults for as long as wanted: nothing may grow, slow down or be lost.

A round is a minute and a half: calls and sessions with every byte checked, then the faults one after the other while
the load goes on, then calls one after the other. No process of the first daemon is touched, so what it keeps of each
lost connection, session and call adds up, and shows as memory, descriptors or latency.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.mail import MailClient
from tests.benchmarks.processes import pss
from tests.soak.daemons import SoakDaemons
from tests.soak.faults import Faults
from tests.soak.load import Load, MailTraffic
from tests.soak.page import HEADER, cells_of, page_of
from tests.soak.verdict import JUDGED, Round, problems_of
from tests.support.two_daemons import until_awaited

_QUIET: Final = 20.0
"""Seconds of load before the faults of a round."""
_LONE_CALLS: Final = 300
_IN_A_ROW: Final = 3
"""Rounds after each of which a growth must show before it ends the soak."""
_DELIVERY: Final = 600.0
"""Seconds in which the last accepted mail must have arrived: the longest pause between two attempts, and more."""
_POOLED: Final = "anon_inode:[eventfd]"
"""Descriptors of a pool that keeps its largest size: a fault makes many futures of iroh wait at once."""
_MOST_POOLED: Final = 256
_WIDTHS: Final = (5, 8, 15, 10, 11, 9, 9, 9, 5, 0)


class _Rounds:
    def __init__(self, daemons: SoakDaemons, client: Client, mail: MailTraffic, rate: float) -> None:
        self._daemons = daemons
        self._client = client
        self._mail = mail
        self._rate = rate
        self._pids = daemons.one.daemon.pids()
        self.faults = Faults(daemons, client, mail)
        self.found: list[Round] = []
        self.lost: list[str] = []

    async def run_one(self) -> None:
        """Run a round, and note its figures, and what was lost."""
        load = Load(self._client, self._daemons.bob, self._rate)
        mail_errors = self._mail.errors.copy()
        running = asyncio.create_task(load.run())
        await self._mail.send()
        await asyncio.wait([running], timeout=_QUIET)
        load.is_disturbed = True
        if not running.done():
            faults = asyncio.create_task(self.faults.pass_all(len(self.found), load))
            await asyncio.wait([running, faults], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                faults.cancel()
            else:
                await faults
        load.stopped = True
        await running
        self.lost += [f"round {len(self.found) + 1}: {each}" for each in [*load.lost, *await self._mail.collect()]]
        await self.faults.healed()
        errors = load.errors + Counter(self._mail.errors - mail_errors)
        await self._note(load, dict(errors))

    async def _note(self, load: Load, errors: dict[str, int]) -> None:
        calls = []
        for _ in range(_LONE_CALLS):
            began = time.perf_counter()
            await self._client.call("alice", self._daemons.bob, "Echo", request={"message": "lone"})
            calls.append(time.perf_counter() - began)
        hundredths = statistics.quantiles(calls, n=100)
        pids = self._daemons.one.daemon.pids()
        if pids != self._pids:
            self.lost.append("a process of the first daemon was restarted")
        descriptors = {name: _descriptors(pid) for name, pid in pids.items()}
        if descriptors["network"].count(_POOLED) > _MOST_POOLED:
            self.lost.append(f"the network process has more than {_MOST_POOLED} eventfds")
        self.found.append(
            Round(
                memory={name: pss([pid]) / 2**20 for name, pid in pids.items()},
                descriptors={name: len(held) - held.count(_POOLED) for name, held in descriptors.items()},
                p10=hundredths[9] * 1000,
                p50=hundredths[49] * 1000,
                p99=hundredths[98] * 1000,
                calls=load.calls,
                errors=errors,
                longest=load.longest,
                longest_in=load.longest_in,
                load=os.getloadavg()[0],
            )
        )


def _descriptors(pid: int) -> list[str]:
    """Return what each descriptor of a process is."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(str(each.readlink()))
    return found


async def soak_rounds(daemons: SoakDaemons, minutes: float, rate: float, page: Path) -> list[str]:
    """Run rounds for so many minutes, print a row for each, and write the page. Return what was lost or has grown."""
    began = time.monotonic()
    grown = 0
    problems: list[str] = []
    _print_row(HEADER)
    async with (
        Client(daemons.one.daemon.home.path) as client,
        MailClient("alice", home=daemons.one.daemon.home) as sender,
        MailClient("bob", home=daemons.two.daemon.home) as receiver,
    ):
        mail = MailTraffic(sender, receiver)
        rounds = _Rounds(daemons, client, mail, rate)

        def write_page(ended_by: list[str]) -> None:
            page.write_text(
                page_of(
                    rounds.found,
                    ended_by,
                    rate=rate,
                    minutes=(time.monotonic() - began) / 60,
                    mails=mail.arrived,
                    kills=sum(rounds.faults.killer.kills.values()),
                    skipped=daemons.skipped,
                )
            )

        while time.monotonic() < began + minutes * 60 and not problems:
            await rounds.run_one()
            _print_row(cells_of(len(rounds.found), rounds.found[-1]))
            growth = problems_of(rounds.found)
            grown = grown + 1 if growth else 0
            problems = [*rounds.lost, *(growth if grown >= _IN_A_ROW else ())]
            if len(rounds.found) > JUDGED:
                write_page(problems)
        problems = problems or problems_of(rounds.found)
        problems += await _missing_mails(mail)
        if len(rounds.found) > JUDGED:
            write_page(problems)
        else:
            print(f"no verdict on growth: {JUDGED + 1} rounds are needed")
    return problems


async def _missing_mails(mail: MailTraffic) -> list[str]:
    async def has_all() -> bool:
        twice.extend(await mail.collect())
        return not mail.missing

    twice: list[str] = []
    try:
        await until_awaited(has_all, "all accepted mails have arrived", _DELIVERY)
    except AssertionError:
        return [*twice, f"accepted, and not arrived: {', '.join(mail.missing)}"]
    return twice


def _print_row(cells: list[str] | tuple[str, ...]) -> None:
    print("  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True)), flush=True)
