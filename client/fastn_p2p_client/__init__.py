"""Peer-to-peer calls and streams for Python programs, through the fastn-p2p daemon.

::

    from fastn_p2p_client import call

    reply = await call("alice", peer, "Echo", request={"message": "hi"})

The daemon holds the keys and the connections. This library needs pyzmq and msgspec, and does no cryptography.

Calls and sessions are made by ``call`` and ``connect``, or by a ``Client``. Programs serve with ``listen`` (one
identity) or ``serve_all`` (every binding that is declared for the program).

Layout
------

The public API is this package and seven modules:

``errors``      all errors, as one tree
``protocol``    ``Protocol``: a class that the daemon, or a program, serves
``sync``        the same API without ``await``
``testing``     tests of programs and protocols without a daemon
``mail``, ``mail.sync``, ``chat``  Mail and Chat for programs

All other modules are internal and can change. ``ipc`` is the local protocol between programs and the daemon;
``session``, ``serving``, ``client``, ``daemon_connection``, ``shared_client`` and ``retry`` implement the API;
``home``, ``keys``, ``tickets``, ``names``, ``peer_text``, ``limits``, ``peer``, ``permissions`` and
``call_context`` are its vocabulary;
``affinity``, ``callables``, ``event_loop_thread``, ``plain_text`` and ``private_paths`` are tools.
"""

from .client import Client
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
from .home import Home
from .keys import PublicKey
from .serving.binding_server import BindingServer, serve_all
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
    "serve_all",
]
