"""Values of the metrics, from the status and the figures of the network process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fastn_p2p_client.ipc.messages import IdentityStatus, ProcessStatus, Status

from ...network.admin_messages import CallFigures, NetworkFigures
from ...runtime.sandbox.states import CLOSED


class Sample(NamedTuple):
    """A value of a metric.

    Attributes:
        name: name in the catalogue.
        labels: values of its labels, in their order.
    """

    name: str
    labels: tuple[str, ...]
    value: float


class Histogram(NamedTuple):
    """Durations of a histogram.

    Attributes:
        counts: numbers of durations by slot of ``call_counters.BOUNDS``.
        total: sum of all, in seconds.
    """

    name: str
    labels: tuple[str, ...]
    counts: list[int]
    total: float


def samples_of(status: Status, figures: NetworkFigures | None, free: int | None) -> Iterator[Sample | Histogram]:
    """Return the values of all metrics that are known.

    Args:
        free: free bytes of the home's disk; None if they are not known.
    """
    yield Sample("info", (status.version, status.network_mode), 1)
    yield Sample("uptime_seconds", (), status.uptime_ms / 1000)
    yield Sample("warnings", (), len(status.warnings))
    yield Sample("answers", ("network",), figures is not None)
    yield Sample("answers", ("vault",), status.vault is not None)
    yield Sample("answers", ("supervisor",), bool(status.processes))
    if status.vault is not None:
        yield Sample("vault_locked", (), status.vault.locked)
    if free is not None:
        yield Sample("disk_free_bytes", (), free)
    yield Sample("programs", (), status.clients)
    yield Sample("identities", (), status.identities_total)
    if figures is not None:
        yield Sample("identities_online", (), status.online_total)
        yield Sample("identities_asleep", (), status.asleep_total)
        yield Sample("wake_ups", (), figures.wake_ups)
        yield Sample("sessions_taken", (), figures.sessions_taken)
        yield Sample("tokens_refused", (), figures.tokens_refused)
    for process in status.processes:
        yield from _of_process(process)
    for identity in status.identities:
        yield from _of_identity(identity)
    if figures is not None:
        yield from _of_network(status, figures)


def _of_process(process: ProcessStatus) -> Iterator[Sample]:
    labels = (process.name,)
    yield Sample("process_up", labels, process.state == "ready")
    yield Sample("process_restarts", labels, process.restarts)
    if process.pid:
        yield Sample("process_memory_bytes", labels, process.memory)
        yield Sample("process_cpu_seconds", labels, process.cpu_ms / 1000)
    if process.sandbox:
        yield Sample("process_confined", labels, process.sandbox == CLOSED)


def _of_identity(identity: IdentityStatus) -> Iterator[Sample]:
    labels = (identity.name,)
    yield Sample("identity_wanted", labels, identity.wanted)
    yield Sample("identity_online", labels, identity.online)
    if identity.delegation_expires_ms is not None:
        yield Sample("identity_delegation_seconds", labels, identity.delegation_expires_ms / 1000)
    for each in identity.publications:
        if each.age_ms is not None:
            yield Sample("identity_record_age_seconds", (identity.name, each.place), each.age_ms / 1000)
        yield Sample("identity_record_problem", (identity.name, each.place), bool(each.problem))
    for binding in identity.bindings:
        names = (identity.name, binding.protocol, binding.instance)
        yield Sample("binding_calls", names, binding.calls)
        yield Sample("binding_errors", names, binding.errors)
        yield Sample("binding_in_flight", names, binding.in_flight)
        yield Sample("binding_sessions", names, binding.sessions)
        yield Sample("binding_serving", names, binding.state == "serving")


def _of_network(status: Status, figures: NetworkFigures) -> Iterator[Sample | Histogram]:
    yield from _of_calls("made", figures.made)
    yield from _of_calls("served", figures.served)
    yield Sample("sessions", ("made",), figures.sessions_opened)
    yield Sample("sessions", ("served",), figures.sessions_arrived)
    yield Sample("open_sessions", ("made",), figures.open_sessions)
    yield Sample("open_sessions", ("served",), figures.served_sessions)
    yield Sample("sent_bytes", (), figures.sent)
    yield Sample("received_bytes", (), figures.received)
    yield Sample("connections", ("outgoing",), figures.connections_opened)
    yield Sample("connections", ("incoming",), figures.connections_accepted)
    yield Sample("dials", (), figures.dials)
    for path, count in figures.paths.items():
        yield Sample("open_connections", (path,), count)
    yield Sample("silent_connections", (), figures.silent)
    yield Sample("relays", (), len(status.relays))
    yield Sample("relay_connected", (), bool(status.home_relay))
    for sender, (waiting, limit) in figures.waiting.items():
        yield Sample("waiting_bytes", (sender,), waiting)
        yield Sample("waiting_limit_bytes", (sender,), limit)
    yield Sample("peers", (), status.peers_total)
    yield Sample("pending_peers", (), status.pending)
    yield Sample("blocked_peers", (), status.blocked)
    yield Sample("invitations", (), status.invitations)


def _of_calls(direction: str, figures: CallFigures) -> Iterator[Sample | Histogram]:
    yield Sample("calls", (direction,), figures.ended)
    yield Sample("calls_in_flight", (direction,), figures.in_flight)
    for code, count in figures.errors.items():
        yield Sample("call_errors", (direction, code), count)
    yield Histogram("call_duration_seconds", (direction,), figures.durations, figures.seconds)
