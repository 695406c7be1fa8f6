"""Figures of the network process for metrics, read from the parts that count."""

from __future__ import annotations

from ..runtime.time_slices import in_time_slices
from .admin_messages import CallFigures, NetworkFigures
from .call_counters import CallCounters
from .calls.incoming import IncomingCalls
from .calls.outgoing import OutgoingCalls
from .connections.payload_memory import PayloadMemory
from .connections.pool import ConnectionPool
from .serving.wake_ups import WakeUps
from .sessions.manager import SessionManager
from .workers.session_routes import SessionRoutes


async def read_figures(
    outgoing: OutgoingCalls,
    incoming: IncomingCalls,
    sessions: SessionManager,
    pool: ConnectionPool,
    payloads: PayloadMemory,
    wake_ups: WakeUps,
    routes: SessionRoutes,
) -> NetworkFigures:
    """Return the figures of this moment. There may be thousands of connections, so they are read in time slices."""
    paths = {"direct": 0, "relayed": 0, "unknown": 0}
    sent, received, silent = 0, 0, 0
    async for each in in_time_slices(pool.all()):
        if not each.closed:
            paths[each.path_now().path] += 1
            sent += each.sent
            received += each.received
            silent += each.is_silent
    payloads.reconcile()
    return NetworkFigures(
        made=_calls(outgoing.counters, len(outgoing)),
        served=_calls(incoming.counters, len(incoming)),
        sessions_opened=sessions.opened,
        sessions_arrived=sessions.arrived,
        open_sessions=len(sessions),
        served_sessions=sessions.served,
        sent=pool.ended_sent + sent,
        received=pool.ended_received + received,
        connections_opened=pool.opened,
        connections_accepted=pool.accepted,
        dials=pool.dials,
        paths=paths,
        silent=silent,
        waiting={
            "strangers": (payloads.strangers.total, payloads.strangers.limit),
            "peers": (payloads.known.total, payloads.known.limit),
            "programs": (payloads.programs.total, payloads.programs.limit),
        },
        wake_ups=wake_ups.count,
        sessions_taken=routes.taken,
        tokens_refused=routes.refused,
    )


def _calls(counters: CallCounters, in_flight: int) -> CallFigures:
    return CallFigures(counters.ended, in_flight, counters.durations, counters.seconds, counters.errors)
