"""Command ``GetHealth``: the parts of the daemon that are not well. It costs less than ``GetStatus``, for probes."""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import GetHealth, HealthProblem, HealthReply

from ...network.admin_messages import GetNetworkReport, NetworkReportReply
from ...runtime.control_channel import ProcessInfo
from ...vault.messages import GetLockState, LockState
from ..context import GatewayContext
from .status import or_none

_SECONDS: Final = 1.0
"""Seconds for each reply."""
_BUSY: Final = "daemon-busy"
_IDENTITY: Final = "identity-"


async def get_health(context: GatewayContext, _: GetHealth, __: bytes) -> HealthReply:
    processes, lock, network = await asyncio.gather(
        or_none(context.supervisor.processes(_SECONDS)),
        or_none(context.vault.request(GetLockState(), LockState, timeout=_SECONDS)),
        _network_problem(context),
    )
    problems = [each for process in processes or [] if (each := _process_problem(process)) is not None]
    named = {each.part for each in problems}
    if processes is None:
        problems.append(_silent("supervisor"))
    if lock is None and "vault" not in named:
        problems.append(_silent("vault"))
    locked = lock is not None and lock.locked
    if locked:
        text = "the vault is locked. Unlock it: fastn-p2p vault unlock"
        problems.append(HealthProblem(part="vault", code=VaultLocked.code, text=text))
    if network is not None and "network" not in named and not locked:
        problems.append(network)
    return HealthReply(sorted(problems, key=lambda each: _GRAVITY.index(each.code)))


_GRAVITY: Final = (_BUSY, VaultLocked.code, "identity-failed")
"""Codes, the gravest first: without one of its own processes the daemon is of no use at all."""


async def _network_problem(context: GatewayContext) -> HealthProblem | None:
    try:
        await context.network.request(GetNetworkReport(1), NetworkReportReply, timeout=_SECONDS)
    except P2PError:
        return _silent("network")
    return None


def _silent(part: str) -> HealthProblem:
    return HealthProblem(part=part, code=_BUSY, text=f"the {part} process does not answer")


def _process_problem(process: ProcessInfo) -> HealthProblem | None:
    """Return the problem of a process that is not ready. Identities may start and stop at any time."""
    is_identity = process.name.startswith(_IDENTITY)
    if process.state == "ready" or (is_identity and process.state in ("starting", "stopping")):
        return None
    ended = f"; it last ended with: {process.last_exit}" if process.last_exit else ""
    code = "identity-failed" if is_identity else _BUSY
    return HealthProblem(part=process.name, code=code, text=f"{process.name} is {process.state}{ended}")
