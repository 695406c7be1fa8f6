"""``GetStatus``: what the supervisor, the network, the identities and the disk say, as one answer.

Everything is asked at the same time and has ``PATIENCE`` seconds; what does not answer becomes a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeVar

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.messages import (
    BindingStatus,
    GetStatus,
    IdentityStatus,
    ProcessStatus,
    Status,
    StatusReply,
)

from ..identity.messages import BindingStates, Describe
from ..leash import ProcessReport
from ..network.messages import Inspect, NetworkReport, NetworkReportReply
from ..store import BindingFile, Found, IdentityFile
from .desk import Desk
from .processes import usage_of

__all__ = ["daemon_version", "get_status", "state_of"]

PATIENCE: Final = 1.0
OFFLINE: Final = "offline"
NOT_SERVING: Final = "not serving"
STOPPED: Final = "stopped"
WAITING: Final = "waiting for a program"
_MAX_REASON: Final = 400
"""Characters of what a program says about why it does not serve something."""

T = TypeVar("T")


@cache
def daemon_version() -> str:
    """Version of the daemon's distribution."""
    try:
        return version("fastn-p2p")
    except PackageNotFoundError:
        return "unknown"


async def get_status(desk: Desk, _message: GetStatus, _: bytes) -> StatusReply:
    warnings: list[str] = []
    identities = desk.store.identities()
    bindings = {record.name: desk.store.bindings(record.name) for record in identities.usable}
    tree, report = await asyncio.gather(
        _or_none(desk.supervisor.tree(PATIENCE)),
        _or_none(desk.network.ask(Inspect(), NetworkReportReply, timeout=PATIENCE)),
    )
    network = report.report if report is not None else None
    if tree is None:
        warnings.append("the supervisor is not answering: the processes are missing")
    if network is None:
        warnings.append(
            "the network process is not answering: connections, peers and the identities' counters are missing"
        )
    warnings += [
        f"{process.name} is {process.state}; it last ended with: {process.last_exit}"
        for process in tree or []
        if process.state in ("failed", "backoff") and process.last_exit
    ]
    warnings += [str(damaged) for damaged in identities.damaged]
    warnings += [str(damaged) for found in bindings.values() for damaged in found.damaged]
    ready = {process.name for process in tree or [] if process.state == "ready"}
    states = await _states_of_missing(desk, network, bindings, ready)
    now_ms = int(desk.wall() * 1000)
    return StatusReply(
        Status(
            version=daemon_version(),
            home=str(desk.home.path),
            network_mode=desk.settings.network_mode,
            endpoint=network.endpoint if network else "",
            addresses=network.addresses if network else [],
            uptime_ms=max(0, now_ms - desk.settings.started_ms),
            clients=desk.clients(),
            processes=await asyncio.to_thread(_processes, tree or [], now_ms),
            identities=_identities(identities.usable, bindings, network, states),
            peers=network.peers if network else [],
            connections=network.connections if network else [],
            warnings=warnings + (network.warnings if network else []),
        )
    )


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except P2PError:
        return None


def _processes(tree: list[ProcessReport], now_ms: int) -> list[ProcessStatus]:
    """Reads ``/proc``: in a thread, since the kernel walks through each process's memory."""
    found: list[ProcessStatus] = []
    for process in tree:
        memory, cpu_ms = usage_of(process.pid) if process.pid else (0, 0)
        found.append(
            ProcessStatus(
                name=process.name,
                pid=process.pid,
                state=process.state,
                uptime_ms=max(0, now_ms - process.started_ms) if process.pid else 0,
                restarts=process.restarts,
                memory=memory,
                cpu_ms=cpu_ms,
            )
        )
    return found


States = dict[tuple[str, str, str], str]
"""Identity, protocol and instance → what the identity's process says about the binding."""


async def _states_of_missing(
    desk: Desk, network: NetworkReport | None, bindings: dict[str, Found[BindingFile]], ready: set[str]
) -> States:
    """Asks those identities' processes of which the network does not know every binding."""
    served = {
        (identity.name, binding.protocol, binding.instance)
        for identity in (network.identities if network else [])
        for binding in identity.bindings
    }
    names = [
        name
        for name, found in bindings.items()
        if f"identity-{name}" in ready
        and any(
            not (binding.program or binding.stopped) and (name, binding.protocol, binding.instance) not in served
            for binding in found.usable
        )
    ]
    answers = await asyncio.gather(*(_or_none(_describe(desk, name)) for name in names))
    failures = desk.noticeboard.failures()
    states = {
        (name, binding.protocol, binding.instance): _state_for_program(name, binding, failures)
        for name, found in bindings.items()
        for binding in found.usable
        if binding.program
    }
    return states | {
        (name, binding.protocol, binding.instance): binding.state
        for name, answer in zip(names, answers, strict=True)
        if answer is not None
        for binding in answer.bindings
    }


def _state_for_program(name: str, binding: BindingFile, failures: dict[tuple[str, str], str]) -> str:
    """Of one that no program serves."""
    reason = failures.get((binding.protocol, f"{name}/{binding.instance}"))
    return WAITING if reason is None else f"failed: {reason[:_MAX_REASON]}"


async def _describe(desk: Desk, name: str) -> BindingStates:
    async with desk.process_of(name) as process:
        return await process.ask(Describe(), BindingStates, timeout=PATIENCE)


def _identities(
    records: list[IdentityFile], bindings: dict[str, Found[BindingFile]], network: NetworkReport | None, states: States
) -> list[IdentityStatus]:
    online = {identity.name: identity for identity in (network.identities if network else [])}
    found = [
        _identity(record, bindings[record.name].usable, online.pop(record.name, None), states) for record in records
    ]
    return found + list(online.values())


def _identity(
    record: IdentityFile, on_disk: list[BindingFile], seen: IdentityStatus | None, states: States
) -> IdentityStatus:
    served = {(binding.protocol, binding.instance): binding for binding in (seen.bindings if seen else [])}
    bindings: list[BindingStatus] = []
    for binding in on_disk:
        said = states.get((record.name, binding.protocol, binding.instance))
        offline = BindingStatus(
            protocol=binding.protocol,
            instance=binding.instance,
            access=list(binding.allow),
            state=_state(binding, said, seen is not None),
        )
        bindings.append(served.pop((binding.protocol, binding.instance), offline))
    return IdentityStatus(
        name=record.name,
        id52=record.id52,
        online=seen is not None and seen.online,
        wanted=record.online,
        bindings=bindings + list(served.values()),
        delegation_expires_ms=seen.delegation_expires_ms if seen is not None else None,
    )


async def state_of(desk: Desk, name: str, binding: BindingFile, up: bool) -> str:
    """As in ``BindingStatus``. ``up``: the identity's process is there to be asked."""
    if binding.program and not binding.stopped:
        status = (await get_status(desk, GetStatus(), b"")).status
        found = (each for identity in status.identities if identity.name == name for each in identity.bindings)
        wanted = (binding.protocol, binding.instance)
        return next((each.state for each in found if (each.protocol, each.instance) == wanted), OFFLINE)
    said = await _or_none(_describe(desk, name)) if up and not binding.stopped else None
    states = {(each.protocol, each.instance): each.state for each in said.bindings} if said is not None else {}
    state = states.get((binding.protocol, binding.instance))
    return state or _state(binding, None, up)


def _state(binding: BindingFile, said: str | None, online: bool) -> str:
    """Of a binding that the network does not know."""
    if binding.stopped:
        return STOPPED
    if binding.program and not online:
        return OFFLINE
    if said is not None and said != "serving":
        return said
    return NOT_SERVING if online else OFFLINE
