"""Catalogue of the metrics. Nothing in a label is chosen by others: no peer, no text of an error, no stranger."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, NamedTuple

PREFIX: Final = "fastn_p2p_"
COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"


class Metric(NamedTuple):
    """A metric.

    Attributes:
        kind: ``counter``, ``gauge`` or ``histogram``.
        text: its meaning.
        labels: names of its labels.
    """

    kind: str
    text: str
    labels: tuple[str, ...] = ()


_BINDING: Final = ("identity", "protocol", "instance")

METRICS: Final = MappingProxyType(
    {
        "info": Metric(GAUGE, "1, with the version and the network mode of the daemon.", ("version", "network_mode")),
        "uptime_seconds": Metric(GAUGE, "Time since the daemon has started."),
        "warnings": Metric(GAUGE, "Warnings of status."),
        "answers": Metric(GAUGE, "1 if the process answers. Without network, its figures are missing.", ("process",)),
        "vault_locked": Metric(GAUGE, "1 if the vault is locked."),
        "disk_free_bytes": Metric(GAUGE, "Free bytes on the disk of the home."),
        "programs": Metric(GAUGE, "Programs that are connected to the gateway."),
        # processes
        "process_up": Metric(GAUGE, "1 if the process is ready.", ("process",)),
        "process_restarts": Metric(COUNTER, "Restarts of the process since the daemon has started.", ("process",)),
        "process_memory_bytes": Metric(GAUGE, "Proportional set size of the process.", ("process",)),
        "process_cpu_seconds": Metric(COUNTER, "Processor time of the present process.", ("process",)),
        "process_confined": Metric(GAUGE, "1 if the sandbox of the process is closed.", ("process",)),
        # calls
        "calls": Metric(COUNTER, "Calls that have ended: made by local programs, or served here.", ("direction",)),
        "call_errors": Metric(COUNTER, "Calls that ended with an error, by its code.", ("direction", "code")),
        "calls_in_flight": Metric(GAUGE, "Calls that have no outcome yet.", ("direction",)),
        "call_duration_seconds": Metric(
            HISTOGRAM,
            "Durations of answered calls: made, to the answer; served, in the process that serves them.",
            ("direction",),
        ),
        # sessions, connections
        "sessions": Metric(COUNTER, "Sessions that were asked for: made or served.", ("direction",)),
        "open_sessions": Metric(GAUGE, "Sessions that are open.", ("direction",)),
        "sent_bytes": Metric(COUNTER, "Bytes sent to peer daemons, without overhead of QUIC."),
        "received_bytes": Metric(COUNTER, "Bytes received from peer daemons, without overhead of QUIC."),
        "connections": Metric(COUNTER, "Connections with peer daemons that were established.", ("direction",)),
        "dials": Metric(COUNTER, "Handshakes with peer daemons that were begun."),
        "open_connections": Metric(GAUGE, "Connections with peer daemons, by the path that they use.", ("path",)),
        "silent_connections": Metric(GAUGE, "Connections over which the peer daemon does not answer."),
        "relays": Metric(GAUGE, "Relays in the settings."),
        "relay_connected": Metric(GAUGE, "1 if the daemon is connected to a relay."),
        "waiting_bytes": Metric(GAUGE, "Bytes of payloads that wait in the network process.", ("sender",)),
        "waiting_limit_bytes": Metric(GAUGE, "Most bytes of such payloads.", ("sender",)),
        # contacts
        "peers": Metric(GAUGE, "Peers in the address book."),
        "pending_peers": Metric(GAUGE, "Strangers that were refused and that wait for the owner."),
        "blocked_peers": Metric(GAUGE, "Identities that are blocked."),
        "invitations": Metric(GAUGE, "Invitations that can be redeemed."),
        # identities
        "identities": Metric(GAUGE, "Identities of the daemon."),
        "identities_online": Metric(GAUGE, "Identities that can be called."),
        "identities_asleep": Metric(GAUGE, "Identities of them that are asleep."),
        "wake_ups": Metric(COUNTER, "Attempts to wake identities that were asleep."),
        "sessions_taken": Metric(COUNTER, "Sessions that workers behind NATS have taken."),
        "tokens_refused": Metric(COUNTER, "Tokens of workers for one session that did not count."),
        "identity_wanted": Metric(GAUGE, "1 if the owner has brought the identity online.", ("identity",)),
        "identity_online": Metric(GAUGE, "1 if the identity can be called.", ("identity",)),
        "identity_delegation_seconds": Metric(
            GAUGE, "Time for which the delegation of the identity is valid.", ("identity",)
        ),
        "identity_record_age_seconds": Metric(
            GAUGE, "Time since a place has taken the record of the identity last.", ("identity", "place")
        ),
        "identity_record_problem": Metric(
            GAUGE, "1 if the place has not taken the newest record.", ("identity", "place")
        ),
        "binding_calls": Metric(COUNTER, "Calls that the binding has served.", _BINDING),
        "binding_errors": Metric(COUNTER, "Calls of them that ended with an error.", _BINDING),
        "binding_in_flight": Metric(GAUGE, "Calls that the binding is serving.", _BINDING),
        "binding_sessions": Metric(GAUGE, "Open sessions of the binding.", _BINDING),
        "binding_serving": Metric(GAUGE, "1 if the binding is served.", _BINDING),
    }
)
"""Every metric, by its name without ``PREFIX``, and without the ``_total`` of a counter."""


def exposed_names(name: str) -> list[str]:
    """Return the names by which Prometheus knows the samples of a metric."""
    kind = METRICS[name].kind
    endings = {COUNTER: ("_total",), GAUGE: ("",), HISTOGRAM: ("_bucket", "_count", "_sum")}[kind]
    return [f"{PREFIX}{name}{ending}" for ending in endings]
