"""``GetStatus``: what the supervisor, the network, the identities and the disk say, as one answer.

Everything is asked at the same time and has ``STATUS_TIMEOUT`` seconds; what does not answer becomes a warning.
However much there is, the answer has a limited number of entries, the first ones by name, and says how many there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple, TypeVar

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import (
    BindingStatus,
    GetStatus,
    IdentityStatus,
    ProcessStatus,
    Status,
    StatusReply,
)

from ...identity.messages import (
    BindingStates,
    GetBindingStates,
)
from ...network.admin_messages import (
    GetNetworkReport,
    NetworkReport,
    NetworkReportReply,
)
from ...runtime import last_exit
from ...runtime.control_channel import ProcessInfo
from ...runtime.process_setup import boot_ms
from ...storage.identity_store import (
    BindingFile,
    IdentityFile,
    IdentityStore,
    LoadResult,
)
from ..context import GatewayContext
from ..process_usage import process_usage

__all__ = ["daemon_version", "get_status", "state_of"]

STATUS_TIMEOUT: Final = 1.0
STATUS_LIMIT: Final = 1000
"""Identities, peers, connections and processes in a status that asks for no other number: about half a second's work
if there are so many of each."""
_ASKED_AT_ONCE: Final = 32
_EXACT_SECONDS: Final = 0.2
"""Seconds for the exact memory of all processes."""
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


async def get_status(desk: GatewayContext, message: GetStatus, _: bytes) -> StatusReply:
    return StatusReply(await _status(desk, message.limit if message.limit > 0 else STATUS_LIMIT))


async def _status(desk: GatewayContext, limit: int, only: str = "") -> Status:
    """The status with at most ``limit`` entries of each kind; ``only``: of one identity, and without peers."""
    stored = await asyncio.to_thread(_read_stored, desk.store, limit, only)
    tree, report = await asyncio.gather(
        _or_none(desk.supervisor.tree(STATUS_TIMEOUT)),
        _or_none(desk.network.request(GetNetworkReport(limit, only), NetworkReportReply, timeout=STATUS_TIMEOUT)),
    )
    network = report.report if report is not None else None
    warnings: list[str] = []
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
    now_ms = boot_ms()
    warnings += _of_the_one_before(desk, now_ms) + stored.warnings
    warnings += network.warnings if network else []
    ready = {process.name for process in tree or [] if process.state == "ready"}
    states = await _states_of_unserved(desk, network, stored.bindings, ready)
    return Status(
        version=daemon_version(),
        home=str(desk.home.path),
        network_mode=desk.settings.network_mode,
        endpoint=network.endpoint if network else "",
        addresses=network.addresses if network else [],
        uptime_ms=max(0, now_ms - desk.settings.started_ms),
        clients=desk.clients(),
        processes=await asyncio.to_thread(_processes, (tree or [])[:limit], now_ms),
        identities=_identities(stored.identities, stored.bindings, network, states)[:limit],
        peers=network.peers if network else [],
        connections=network.connections if network else [],
        warnings=_summed(warnings, limit),
        identities_total=stored.total,
        peers_total=max(network.peers_total, len(network.peers)) if network else 0,
        connections_total=max(network.connections_total, len(network.connections)) if network else 0,
        processes_total=len(tree or []),
    )


def _of_the_one_before(desk: GatewayContext, now_ms: int) -> list[str]:
    """How the daemon before this one failed, if this one has just been started."""
    if now_ms - desk.settings.started_ms > last_exit.SHOWN_SECONDS * 1000:
        return []
    previous = last_exit.read_previous(desk.home)
    if previous is None or not previous.code:
        return []
    return [f"the daemon was started again; the one before ended: {previous}; see {desk.home.logs}"]


class _Stored(NamedTuple):
    """Identities that are shown, as they are on disk."""

    total: int
    """Total of all identities."""
    identities: list[IdentityFile]
    bindings: dict[str, LoadResult[BindingFile]]
    warnings: list[str]


def _read_stored(store: IdentityStore, limit: int, only: str) -> _Stored:
    """Reads several files for each identity: in a thread."""
    names = store.names()
    identities = store.identities([only] if only else names[:limit])
    bindings = {record.name: store.bindings(record.name) for record in identities.usable}
    damaged = [*identities.damaged, *(each for found in bindings.values() for each in found.damaged)]
    return _Stored(len(names), identities.usable, bindings, list(map(str, damaged)))


def _summed(warnings: list[str], limit: int) -> list[str]:
    rest = len(warnings) - limit
    return warnings if rest <= 0 else [*warnings[:limit], f"and {rest} more warnings"]


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except P2PError:
        return None


def _processes(tree: list[ProcessInfo], now_ms: int) -> list[ProcessStatus]:
    """Reads ``/proc``: in a thread, since the kernel walks through each process's memory. When that takes too long, for
    the rest of them the memory is what it can say at once."""
    found: list[ProcessStatus] = []
    exact_until = time.monotonic() + _EXACT_SECONDS
    for process in tree:
        exact = time.monotonic() < exact_until
        memory, cpu_ms = process_usage(process.pid, exact=exact, reported=process.memory) if process.pid else (0, 0)
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


async def _states_of_unserved(
    desk: GatewayContext, network: NetworkReport | None, bindings: dict[str, LoadResult[BindingFile]], ready: set[str]
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
    answers = await _descriptions(desk, names)
    failures = desk.noticeboard.failures()
    states = {
        (name, binding.protocol, binding.instance): _state_for_program(name, binding, failures)
        for name, found in bindings.items()
        for binding in found.usable
        if binding.program
    }
    return states | {
        (name, binding.protocol, binding.instance): binding.state
        for name, answer in answers.items()
        for binding in answer.bindings
    }


async def _descriptions(desk: GatewayContext, names: list[str]) -> dict[str, BindingStates]:
    """Replies of the identity processes that answer in time; a few are asked at once."""
    places = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def describe(name: str) -> BindingStates | None:
        async with places:
            return await _or_none(_describe(desk, name))

    tasks = {name: asyncio.ensure_future(describe(name)) for name in names}
    if tasks:
        _, late = await asyncio.wait(tasks.values(), timeout=STATUS_TIMEOUT)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    answers = {name: task.result() for name, task in tasks.items() if not task.cancelled()}
    return {name: answer for name, answer in answers.items() if answer is not None}


def _state_for_program(name: str, binding: BindingFile, failures: dict[tuple[str, str], str]) -> str:
    """Of one that no program serves."""
    reason = failures.get((binding.protocol, f"{name}/{binding.instance}"))
    return WAITING if reason is None else f"failed: {reason[:_MAX_REASON]}"


async def _describe(desk: GatewayContext, name: str) -> BindingStates:
    async with desk.identity_client(name) as process:
        return await process.request(GetBindingStates(), BindingStates, timeout=STATUS_TIMEOUT)


def _identities(
    records: list[IdentityFile],
    bindings: dict[str, LoadResult[BindingFile]],
    network: NetworkReport | None,
    states: States,
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
        limits=record.limits,
    )


async def state_of(desk: GatewayContext, name: str, binding: BindingFile, up: bool) -> str:
    """As in ``BindingStatus``. ``up``: the identity's process is there to be asked."""
    if binding.program and not binding.stopped:
        status = await _status(desk, STATUS_LIMIT, name)
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
