"""Retried calls to an identity at several daemons, while those fail: each has one outcome, and is executed once."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from fastn_p2p_client import Client
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import AddProtocol
from tests.support.counting_protocol import read_executions
from tests.support.daemons import Daemon
from tests.support.joined_replicas import join_replica, new_joined_replicas
from tests.support.replicas import freeze, kill_all, thaw
from tests.support.two_daemons import until, until_awaited

IN_FLIGHT: Final = 32
TIMEOUT: Final = 60.0
ENDED: Final = re.compile(r"supervisor: (\S+) ended \((?!no heartbeat)(.*)\)")
"""Line in the supervisor's log about a process that has ended by itself. One that was too slow is not meant."""

Step = Callable[[], Awaitable[None]]


class CountedCalls:
    """bob's calls to alice, each with a number of its own, and what is done to her daemons meanwhile.

    Args:
        client: of bob's daemon.
        caller: bob's daemon.
        alice: ID52.
        daemons: alice's; the owner's comes first.

    Attributes:
        begun: number of calls.
        replies: numbers that were answered.
        errors: code of the error by each other number.
        killed: network processes that were killed.
    """

    def __init__(self, client: Client, caller: Daemon, alice: str, daemons: list[Daemon]) -> None:
        self._client = client
        self._caller = caller
        self._alice = alice
        self._daemons = daemons
        self._numbers = itertools.count(1)
        self._extra: list[asyncio.Task[None]] = []
        self.begun = 0
        self.replies: list[int] = []
        self.errors: dict[int, str] = {}
        self.killed: Counter[Daemon] = Counter()

    @property
    def ended(self) -> int:
        return len(self.replies) + len(self.errors)

    async def run(self, calls: int, step: Step) -> None:
        """Make calls. Take the step once a third of them has ended."""
        ended, left, ready = self.ended + calls // 3, iter(range(calls)), asyncio.Event()

        async def lane() -> None:
            for _ in left:
                await self._call()
                if self.ended >= ended:
                    ready.set()

        async def disturb() -> None:
            await ready.wait()
            await step()

        await asyncio.gather(disturb(), *(lane() for _ in range(IN_FLIGHT)))
        await asyncio.gather(*self._extra)

    async def _call(self) -> None:
        number = next(self._numbers)
        self.begun += 1
        try:
            reply = await self._client.call("bob", self._alice, "Counting", request=number, timeout=TIMEOUT, retry=True)
        except P2PError as error:
            self.errors[number] = error.code
        else:
            assert reply == -number
            self.replies.append(number)

    # ── what happens meanwhile ───────────────────────────────────────────────────────────────────

    async def restart(self) -> None:
        serving = await self._serving()
        await asyncio.to_thread(kill_all, serving)
        await asyncio.to_thread(serving.start)

    async def freeze(self) -> None:
        """Freeze the daemon until its calls are given up."""
        serving, errors = await self._serving(), len(self.errors)
        await asyncio.to_thread(freeze, serving)
        try:
            await until(lambda: len(self.errors) > errors, "calls are given up")
        finally:
            await asyncio.to_thread(thaw, serving)

    async def freeze_briefly(self) -> None:
        """Freeze the daemon until another one serves. The calls at the frozen one still wait."""
        serving = await self._serving()
        others = [each for each in self._daemons if each is not serving]
        before = sum(map(executed, others))

        async def another_serves() -> bool:
            self._extra.append(asyncio.create_task(self._call()))  # all others wait for the frozen one
            return sum(map(executed, others)) > before

        await asyncio.to_thread(freeze, serving)
        try:
            await until_awaited(another_serves, "another daemon serves")
        finally:
            await asyncio.to_thread(thaw, serving)

    async def kill_network(self) -> None:
        await self._kill_network(await self._serving())

    async def kill_network_of_caller(self) -> None:
        await self._kill_network(self._caller)

    async def end_owner(self) -> None:
        await asyncio.to_thread(kill_all, self._daemons[0])

    async def _kill_network(self, daemon: Daemon) -> None:
        self.killed[daemon] += 1
        pid = await asyncio.to_thread(daemon.kill_actor, "network")
        await asyncio.to_thread(daemon.wait_actor, "network", pid)

    async def _serving(self) -> Daemon:
        """Return the daemon that executes the calls at the moment."""
        before = {each: executed(each) for each in self._daemons}
        await self._call()
        return max(self._daemons, key=lambda each: executed(each) - before[each])


def executed(daemon: Daemon) -> int:
    return len(read_executions(daemon.home.path))


def ends(daemon: Daemon) -> Counter[tuple[str, ...]]:
    """Return which processes have ended by themselves, and how, by the log of all runs of the daemon."""
    return Counter(match.groups() for match in ENDED.finditer((daemon.home.logs / "supervisor.log").read_text()))


@contextmanager
def counting_daemons(replicas: int) -> Iterator[tuple[Daemon, str, list[Daemon]]]:
    """Yield bob's daemon, alice's ID52, and her daemons: her owner's first, then the replicas."""
    with new_joined_replicas(Counting="tests.support.counting_protocol:Counting") as joined, ExitStack() as stack:
        daemons = [joined.owner, joined.replica]
        for number in range(1, replicas):
            home = joined.owner.home.path
            another = Daemon(
                home.with_name(f"joined-{number}"),
                home.with_name("hosts"),
                PYTHONPATH=joined.owner.env["PYTHONPATH"],
            )
            stack.callback(another.clean_up)
            stack.callback(thaw, another)
            join_replica(joined.owner, another.start(), name=f"another-{number}")
            daemons.append(another)
        for each in daemons:
            with each.client() as client:
                client.control(AddProtocol("alice", "Counting", "default", ("everyone",)))
        yield joined.caller, joined.alice, daemons


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Daemon, str, list[Daemon]]]:
    with counting_daemons(request.param) as made:
        yield made


@pytest.mark.parametrize(
    ("served", "calls"),
    [pytest.param(1, 1_500, id="short"), pytest.param(2, 20_000, id="long", marks=pytest.mark.lab_long)],
    indirect=["served"],
)
async def test_each_retried_call_has_one_outcome_and_one_execution_at_most(
    served: tuple[Daemon, str, list[Daemon]], calls: int
) -> None:
    caller, alice, daemons = served
    async with Client(caller.home, program="tests") as client:
        made = CountedCalls(client, caller, alice, daemons)
        steps: list[Step] = [made.restart, made.freeze_briefly, made.kill_network, made.kill_network_of_caller]
        if len(daemons) > 2:
            steps = [*steps, made.freeze]
            steps = [*steps, *steps, made.end_owner, *steps]  # the replicas go on by themselves
        else:
            steps = [*steps, made.end_owner]
        for step in steps:
            await made.run(calls // len(steps) + 1, step)
    assert made.begun == made.ended == len({*made.replies, *made.errors}) >= calls
    assert_executed_once(made, daemons)
    for each in (caller, *daemons):
        assert ends(each) == Counter({("network", "killed by SIGKILL"): made.killed[each]}), each.report()


def assert_executed_once(made: CountedCalls, daemons: list[Daemon]) -> None:
    """Assert that no number was executed twice, by any daemon, and that no reply was made up."""
    executions: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, each in enumerate(daemons):
        for number, pid in read_executions(each.home.path):
            executions[number].append((place, pid))
    print(
        f"{made.begun} calls: {len(made.replies)} replies, {dict(Counter(made.errors.values()))}, of which "
        f"{len(made.errors.keys() & executions.keys())} were executed; {[executed(each) for each in daemons]} by daemon"
    )
    assert set(made.errors.values()) <= {"outcome-unknown"}
    assert executions.keys() >= set(made.replies)
    assert {number: by for number, by in executions.items() if len(by) > 1} == {}
