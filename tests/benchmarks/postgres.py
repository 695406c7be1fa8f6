"""Mail in PostgreSQL against Mail in SQLite: accepted by one daemon, each on disk, with both in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from fastn_p2p_client.errors import PermissionsNeeded
from fastn_p2p_client.ipc import messages as m
from tests.support.postgres_server import find_programs, running_postgres

from .results import BenchmarkError, Outcome, ratio
from .system import System
from .worker import Worker

__all__ = ["measure"]

_WRITERS: Final = 64
_NOBODY: Final = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
"""An identity that no daemon has: what is sent to it waits."""
_MUCH: Final = 1_000_000_000


async def measure(
    system: System, stack: AsyncExitStack, rounds: int, seconds: float, on_progress: Callable[[str], Any]
) -> Outcome:
    """A round is ``seconds`` of accepting with each engine."""
    programs = find_programs()
    if programs is None:
        raise BenchmarkError("PostgreSQL is not installed: make services")
    server = stack.enter_context(running_postgres(programs))
    limits = {"max_outbox_messages": _MUCH, "max_outbox_bytes": _MUCH}
    for instance, store in (("sqlite", ""), ("postgres", server.url(server.new_database()))):
        config = json.dumps({"store": store, **limits}).encode()
        try:
            await system.one.control(m.AddProtocol("alice", "Mail", instance), config)
        except PermissionsNeeded as error:
            granted = tuple(error.permissions.split("\n"))
            await system.one.control(m.AddProtocol("alice", "Mail", instance, granted=granted), config)
        stack.push_async_callback(system.one.control, m.RemoveProtocol("alice", "Mail", instance))
    mailer = await Worker.start("mailer", "mailer", str(system.one.home), environment=system.environment)
    stack.push_async_callback(mailer.stop)
    await mailer.greeting()
    rates: dict[str, list[float]] = {"postgres": [], "sqlite": []}
    for number in range(rounds):
        on_progress(f"mail in PostgreSQL: round {number + 1} of {rounds}")
        for instance in ("sqlite", "postgres") if number % 2 else ("postgres", "sqlite"):
            rates[instance].append(
                await mailer.do("accept", float, to=_NOBODY, writers=_WRITERS, seconds=seconds, instance=instance)
            )
    return Outcome(statements=[ratio("accept-postgres", rates["postgres"], rates["sqlite"])])
