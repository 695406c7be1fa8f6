"""Command ``GetStatus``: state of supervisor, network process, identities and disk in one reply.

All are asked at the same time and have ``STATUS_TIMEOUT`` seconds. One that does not reply becomes a warning. The reply
has a limited number of entries, the first ones by name, and contains the total numbers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import (
    BindingStatus,
    GetStatus,
    IdentityStatus,
    ProcessStatus,
    Status,
    StatusReply,
    VaultInfo,
)

from ...identity.messages import BindingStates, GetBindingStates
from ...network.admin_messages import GetNetworkReport, NetworkReport, NetworkReportReply
from ...runtime import last_exit
from ...runtime.control_channel import ProcessInfo
from ...runtime.process_setup import boot_ms
from ...runtime.sandbox.states import OPEN
from ...storage.identity_store import BindingFile, IdentityFile, IdentityStore, LoadResult
from ...vault.messages import GetLockState, LockState
from ..context import GatewayContext
from ..process_usage import process_usage

STATUS_TIMEOUT: Final = 1.0
"""Seconds for each reply."""
STATUS_LIMIT: Final = 1000
"""Default number of identities, peers, connections and processes in a status: about half a second of work, if there
are so many of each."""
_PARALLEL_REQUESTS: Final = 32
"""Identity processes that are asked at the same time."""
_EXACT_SECONDS: Final = 0.2
"""Seconds for the exact memory of all processes."""
OFFLINE: Final = "offline"
NOT_SERVING: Final = "not serving"
STOPPED: Final = "stopped"
WAITING: Final = "waiting for a program"
_MOST_NAMES: Final = 4
"""Names of processes in one warning."""
_MAX_REASON: Final = 400
"""Characters of a program's reason for not serving a binding."""

T = TypeVar("T")


async def get_status(context: GatewayContext, message: GetStatus, _: bytes) -> StatusReply:
    return StatusReply(await _status(context, message.limit if message.limit > 0 else STATUS_LIMIT))


async def _status(context: GatewayContext, limit: int, only: str = "") -> Status:
    """Return the status with at most ``limit`` entries of each kind.

    ``only`` restricts it to one identity, without peers.
    """
    stored = await asyncio.to_thread(_read_stored, context.store, limit, only)
    processes, lock, report = await asyncio.gather(
        or_none(context.supervisor.processes(STATUS_TIMEOUT)),
        or_none(context.vault.request(GetLockState(), LockState, timeout=STATUS_TIMEOUT)),
        or_none(context.network.request(GetNetworkReport(limit, only), NetworkReportReply, timeout=STATUS_TIMEOUT)),
    )
    network = report.report if report is not None else None
    warnings: list[str] = []
    if processes is None:
        warnings.append("the supervisor is not answering: the processes are missing")
    if network is None and lock is not None and lock.locked:
        warnings.append(
            "the vault is locked since the daemon has started: no identity is online, and no peer can be reached. "
            "Unlock it: fastn-p2p vault unlock"
        )
    elif network is None:
        warnings.append(
            "the network process is not answering: connections, peers and the identities' counters are missing"
        )
    warnings += [
        f"{process.name} is {process.state}; it last ended with: {process.last_exit}"
        for process in processes or []
        if process.state in ("failed", "backoff") and process.last_exit
    ]
    warnings += open_sandboxes((process.name, process.sandbox) for process in processes or [])
    warnings += [
        f"the sandbox of {process.name} has refused to its protocols: {process.refused}. "
        f"How to allow it is in {context.home.logs / f'{process.name}.log'}"
        for process in processes or []
        if process.refused
    ]
    warnings += context.filled_disk.values()
    if context.metrics_problem:
        warnings.append(context.metrics_problem)
    now_ms = boot_ms()
    warnings += _previous_exit_warning(context, now_ms) + stored.warnings
    warnings += network.warnings if network else []
    ready = {process.name for process in processes or [] if process.state == "ready"}
    states = await _states_of_unserved(context, network, stored.bindings, ready)
    return Status(
        version=context.settings.version,
        home=str(context.home.path),
        network_mode=context.settings.network_mode,
        endpoint=network.endpoint if network else "",
        addresses=network.addresses if network else [],
        uptime_ms=max(0, now_ms - context.settings.started_ms),
        clients=context.clients(),
        processes=await asyncio.to_thread(_processes, (processes or [])[:limit], now_ms),
        identities=_identities(stored.identities, stored.bindings, network, states)[:limit],
        peers=network.peers if network else [],
        connections=network.connections if network else [],
        warnings=_truncate(warnings, limit),
        identities_total=stored.total,
        peers_total=max(network.peers_total, len(network.peers)) if network else 0,
        connections_total=max(network.connections_total, len(network.connections)) if network else 0,
        processes_total=len(processes or []),
        relays=network.relays if network else [],
        home_relay=network.home_relay if network else "",
        directories=network.directories if network else [],
        lan=network.lan if network else False,
        pending=network.pending if network else 0,
        blocked=network.blocked if network else 0,
        vault=None if lock is None else VaultInfo(encrypted=lock.encrypted, locked=lock.locked, locks_at=lock.until),
        transport_epoch=0 if lock is None else lock.epoch,
        transport_since="" if lock is None else lock.since,
        invitations=network.invitations if network else 0,
        online_total=network.identities_total if network else 0,
        asleep_total=network.asleep_total if network else 0,
    )


def open_sandboxes(states: Iterable[tuple[str, str]]) -> list[str]:
    """Return a warning for each reason for which sandboxes are open, with the names of the processes.

    Args:
        states: name and ``ProcessStatus.sandbox`` of each process.
    """
    found: dict[str, list[str]] = {}
    for name, state in states:
        if state.startswith(OPEN):
            found.setdefault(state, []).append(name)
    return [f"the sandbox of {_shortened(names)} is {state}" for state, names in found.items()]


def _shortened(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMES
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {rest} more"


def _previous_exit_warning(context: GatewayContext, now_ms: int) -> list[str]:
    """Return a warning if the previous daemon failed and this one has started lately."""
    if now_ms - context.settings.started_ms > last_exit.SHOWN_SECONDS * 1000:
        return []
    previous = last_exit.read_previous(context.home)
    if previous is None or not previous.code:
        return []
    return [f"the daemon was started again; the one before ended: {previous}; see {context.home.logs}"]


class _Stored(NamedTuple):
    """Identities on disk that are shown."""

    total: int
    """Number of all identities."""
    identities: list[IdentityFile]
    bindings: dict[str, LoadResult[BindingFile]]
    warnings: list[str]


def _read_stored(store: IdentityStore, limit: int, only: str) -> _Stored:
    """Read several files for each identity; call it in a thread."""
    names = store.names()
    identities = store.identities([only] if only else names[:limit])
    bindings = {record.name: store.bindings(record.name) for record in identities.usable}
    damaged = [*identities.damaged, *(each for found in bindings.values() for each in found.damaged)]
    return _Stored(len(names), identities.usable, bindings, list(map(str, damaged)))


def _truncate(warnings: list[str], limit: int) -> list[str]:
    rest = len(warnings) - limit
    return warnings if rest <= 0 else [*warnings[:limit], f"and {rest} more warnings"]


async def or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except P2PError:
        return None


def _processes(processes: list[ProcessInfo], now_ms: int) -> list[ProcessStatus]:
    """Read the usage of processes from ``/proc``; call it in a thread, because the kernel walks through their memory.

    After ``_EXACT_SECONDS``, the memory of the rest is a value that the kernel has at once.
    """
    found: list[ProcessStatus] = []
    exact_until = time.monotonic() + _EXACT_SECONDS
    for process in processes:
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
                sandbox=process.sandbox,
            )
        )
    return found


States = dict[tuple[str, str, str], str]
"""State of a binding in its identity's process, by identity, protocol and instance."""


async def _states_of_unserved(
    context: GatewayContext,
    network: NetworkReport | None,
    bindings: dict[str, LoadResult[BindingFile]],
    ready: set[str],
) -> States:
    """Return states of bindings that the network process does not serve; their identity processes are asked."""
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
    answers = await _descriptions(context, names)
    failures = context.watchers.failures()
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


async def _descriptions(context: GatewayContext, names: list[str]) -> dict[str, BindingStates]:
    """Return the replies of identity processes that arrive in time."""
    slots = asyncio.Semaphore(_PARALLEL_REQUESTS)

    async def describe(name: str) -> BindingStates | None:
        async with slots:
            return await or_none(_describe(context, name))

    tasks = {name: asyncio.ensure_future(describe(name)) for name in names}
    if tasks:
        _, late = await asyncio.wait(tasks.values(), timeout=STATUS_TIMEOUT)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    answers = {name: task.result() for name, task in tasks.items() if not task.cancelled()}
    return {name: answer for name, answer in answers.items() if answer is not None}


def _state_for_program(name: str, binding: BindingFile, failures: dict[tuple[str, str], str]) -> str:
    """Return the state of a program's binding that no program serves."""
    reason = failures.get((binding.protocol, f"{name}/{binding.instance}"))
    return WAITING if reason is None else f"failed: {reason[:_MAX_REASON]}"


async def _describe(context: GatewayContext, name: str) -> BindingStates:
    async with context.identity_client(name) as process:
        return await process.request(GetBindingStates(), BindingStates, timeout=STATUS_TIMEOUT)


def _identities(
    records: list[IdentityFile],
    bindings: dict[str, LoadResult[BindingFile]],
    network: NetworkReport | None,
    states: States,
) -> list[IdentityStatus]:
    online = {identity.name: identity for identity in (network.identities if network else [])}
    revoked = network.revoked if network else {}
    found = [
        _identity(
            record,
            bindings[record.name].usable,
            online.pop(record.name, None),
            states,
            revoked.get(record.name, ("", "")),
        )
        for record in records
    ]
    return found + list(online.values())


def _identity(
    record: IdentityFile,
    on_disk: list[BindingFile],
    seen: IdentityStatus | None,
    states: States,
    revoked: tuple[str, str],
) -> IdentityStatus:
    """Return the status of an identity on disk.

    Args:
        revoked: time and successor of its revocation, as the network process knows it; empty texts without one.
    """
    served = {(binding.protocol, binding.instance): binding for binding in (seen.bindings if seen else [])}
    bindings: list[BindingStatus] = []
    for binding in on_disk:
        reported = states.get((record.name, binding.protocol, binding.instance))
        offline = BindingStatus(
            protocol=binding.protocol,
            instance=binding.instance,
            access=list(binding.allow),
            state=_state(binding, reported, seen is not None),
        )
        found = served.pop((binding.protocol, binding.instance), offline)
        bindings.append(replace(found, claims=binding.claims) if binding.claims else found)
    replicas = seen.replicas if seen is not None else []
    return IdentityStatus(
        name=record.name,
        id52=record.id52,
        online=seen is not None and seen.online,
        wanted=record.online,
        bindings=bindings + list(served.values()),
        delegation_expires_ms=seen.delegation_expires_ms if seen is not None else None,
        limits=record.limits,
        listed=record.listed,
        publications=seen.publications if seen is not None else [],
        revoked=record.revoked or revoked[0],
        successor=record.successor if record.revoked else revoked[1],
        asleep=seen is not None and seen.asleep,
        idle=record.idle,
        replicas=replicas,
        owner=next((each.name for each in replicas if each.joined), record.owner),
    )


async def state_of(context: GatewayContext, name: str, binding: BindingFile, up: bool) -> str:
    """Return the state of a binding for ``BindingStatus``. ``up`` is True if the identity's process serves."""
    if binding.program and not binding.stopped:
        status = await _status(context, STATUS_LIMIT, name)
        found = (each for identity in status.identities if identity.name == name for each in identity.bindings)
        wanted = (binding.protocol, binding.instance)
        return next((each.state for each in found if (each.protocol, each.instance) == wanted), OFFLINE)
    reply = await or_none(_describe(context, name)) if up and not binding.stopped else None
    states = {(each.protocol, each.instance): each.state for each in reply.bindings} if reply is not None else {}
    state = states.get((binding.protocol, binding.instance))
    return state or _state(binding, None, up)


def _state(binding: BindingFile, reported: str | None, online: bool) -> str:
    """Return the state of a binding that the network process does not serve."""
    if binding.stopped:
        return STOPPED
    if binding.program and not online:
        return OFFLINE
    if reported is not None and reported != "serving":
        return reported
    return NOT_SERVING if online else OFFLINE
