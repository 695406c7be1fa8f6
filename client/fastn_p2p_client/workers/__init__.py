"""Handlers of a binding on other machines, through a NATS server. Needs the extra ``nats``.

::

    serve_workers("nats://nats.example.org:4222", "alice", "Work", handle).run()

The owner of the identity adds the binding: ``fastn-p2p add-protocol alice --protocol Work --workers URL``. The bridge
in the identity's process then spreads calls over the workers.

Layout
------

``worker_server``     ``serve_workers`` and ``WorkerServer``: the handlers
``dialled_sessions``  sessions, for each of which the worker connects to the daemon
``late_offers``       offers that have perhaps waited for too long
``ping_responder``    a thread that answers pings while handlers compute
``messages``          all messages, and the subjects that they travel on
``pending_messages``  messages that wait to be sent, in groups
``parts``             payloads that are larger than a message of the server may be
``nats_channel``      one connection to a NATS server, made again whenever it ends
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..nats_client.nats_server import InvalidServer, NatsUnusable
    from .worker_server import WorkerServer, serve_workers

__all__ = ["InvalidServer", "NatsUnusable", "WorkerServer", "serve_workers"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..nats_client import nats_server
    from . import worker_server

    return getattr(nats_server if hasattr(nats_server, name) else worker_server, name)
