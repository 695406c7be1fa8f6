"""Peer-to-peer calls and streams for Python programs, through the fastn-p2p daemon.

::

    from fastn_p2p_client import call

    reply = await call("alice", peer, "Echo", request={"message": "hi"})

The daemon holds the keys and the connections. This library needs pyzmq and msgspec, and does no cryptography. Names of
this package, except errors, are imported at their first use.

Calls and sessions are made by ``call`` and ``connect``, or by a ``Client``. Programs serve with ``listen`` (one
identity), ``serve_all`` (every binding that is declared for the program) or ``listen_remotely`` (one binding of a
daemon on another machine).

Layout
------

The public API is this package and seven modules:

``errors``      all errors, as one tree
``protocol``    ``Protocol``: a class that the daemon, or a program, serves
``sync``        the same API without ``await``
``testing``     tests of programs and protocols without a daemon
``mail``, ``mail.sync``, ``chat``  Mail and Chat for programs

``http`` is for web services, and ``otel`` makes spans; each needs the extra of its name. ``workers`` serves on machines
without a daemon, with the extra ``nats``. All other modules are internal and can change. ``ipc`` is the local protocol;
``session``, ``serving``, ``claims``, ``admin``, ``client``, ``control_client``, ``daemon_connection``,
``shared_client`` and ``retry`` implement the API; ``nats_client`` and ``postgres`` reach servers with claims; ``home``,
``keys``, ``tickets``, ``names``, ``peer_text``, ``limits``, ``peer``, ``worker_token``, ``permissions``,
``call_context`` and ``request_id`` are its vocabulary; ``affinity``, ``callables``, ``durations``,
``event_loop_thread``, ``plain_text`` and ``private_paths`` are tools.
"""

import typing

from .errors import (
    ApplicationError,
    BadReply,
    BadRequest,
    CommandNotFound,
    ConnectionLost,
    CredentialError,
    DaemonBusy,
    DaemonNotRunning,
    DeadlineExceeded,
    Denied,
    HandlerFailed,
    IdentityAmbiguous,
    IdentityNotFound,
    IdentityOffline,
    InstanceNotFound,
    InvalidKey,
    InvalidTicket,
    LocalError,
    NoIdentityOnline,
    OutcomeUnknown,
    Overloaded,
    P2PError,
    PayloadTooLarge,
    PeerBlocked,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
    ProtocolNotFound,
    RemoteError,
    SessionClosed,
    StreamReset,
    UsageError,
    UsedElsewhere,
    VersionMismatch,
)

if typing.TYPE_CHECKING:
    from .client import Client
    from .home import Home
    from .keys import PublicKey
    from .serving.binding_server import BindingServer, serve_all
    from .serving.remote_server import RemoteServer, listen_remotely
    from .serving.server import Server, listen
    from .session.session import Session
    from .shared_client import call, connect
    from .tickets import Ticket

__all__ = [
    "ApplicationError",
    "BadReply",
    "BadRequest",
    "BindingServer",
    "Client",
    "CommandNotFound",
    "ConnectionLost",
    "CredentialError",
    "DaemonBusy",
    "DaemonNotRunning",
    "DeadlineExceeded",
    "Denied",
    "HandlerFailed",
    "Home",
    "IdentityAmbiguous",
    "IdentityNotFound",
    "IdentityOffline",
    "InstanceNotFound",
    "InvalidKey",
    "InvalidTicket",
    "LocalError",
    "NoIdentityOnline",
    "OutcomeUnknown",
    "Overloaded",
    "P2PError",
    "PayloadTooLarge",
    "PeerBlocked",
    "PeerOffline",
    "PeerUnknown",
    "PeerUnreachable",
    "ProtocolNotFound",
    "PublicKey",
    "RemoteError",
    "RemoteServer",
    "Server",
    "Session",
    "SessionClosed",
    "StreamReset",
    "Ticket",
    "UsageError",
    "UsedElsewhere",
    "VersionMismatch",
    "call",
    "connect",
    "listen",
    "listen_remotely",
    "serve_all",
]

_MODULES: typing.Final = {
    "BindingServer": "serving.binding_server",
    "Client": "client",
    "Home": "home",
    "PublicKey": "keys",
    "RemoteServer": "serving.remote_server",
    "Server": "serving.server",
    "Session": "session.session",
    "Ticket": "tickets",
    "call": "shared_client",
    "connect": "shared_client",
    "listen": "serving.server",
    "listen_remotely": "serving.remote_server",
    "serve_all": "serving.binding_server",
}
"""Module of each name that is imported at its first use: a program that only calls needs half of the library."""

if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> typing.Any:
        from importlib import import_module

        if name == "protocol":  # the public module that programs could use without importing it
            return import_module(f"{__name__}.protocol")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__} - {"__dir__", "__getattr__"})
