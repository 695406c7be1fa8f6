"""Peer-to-peer calls for Python programs, through the fastn-p2p daemon.

::

    from fastn_p2p_client import call

    reply = await call("alice", peer, "Echo", request={"message": "hi"})

The daemon holds the keys and the connections; this library needs pyzmq and msgspec and knows no cryptography.

Layout
------

``client``       ``Client``, ``call`` and ``connect``; ``retry`` calls again what may be called again
``session``      ``Session``: a stream to a peer, and its blocking twin
``serving``      run handlers: ``listen``, ``Server``, ``serve_all``, ``BindingServer``
``protocol``     ``Protocol``: a class that serves; ``peer`` and ``call_context`` are what its handlers are given
``sync``         the blocking API; ``event_loop_thread`` is the thread that it uses
``testing``      tests of programs and protocols without a daemon
``mail``, ``chat``  Mail and Chat for programs; ``owner`` finds out whose
``ipc``          the local protocol, between programs and the daemon's processes
``keys``         ``PublicKey`` and its text, the ID52; ``tickets`` is where a peer can be reached, as text
``errors``       everything that can go wrong, as one tree
``limits``, ``names``  the numbers that both sides agree on, and the rules for names
``home``         where the daemon's files are; ``private_paths`` checks who can change them
``affinity``     to which process and event loop a client, session or server belongs
``callables``    names and layers of functions, for handlers
``plain_text``   text of others, made safe to show
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
    Overloaded,
    P2PError,
    PayloadTooLarge,
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
from .serving.binding_server import (
    BindingServer,
    serve_all,
)
from .serving.server import (
    Server,
    listen,
)
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
    "Overloaded",
    "P2PError",
    "PayloadTooLarge",
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
