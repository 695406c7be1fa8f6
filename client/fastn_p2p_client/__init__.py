"""Peer-to-peer calls for Python programs, through the fastn-p2p daemon.

::

    from fastn_p2p_client import call

    reply = await call("alice", peer, "Echo", request={"message": "hi"})

The daemon holds the keys and the connections; this library needs pyzmq and msgspec and knows no cryptography.

Layout
------

``client``      ``Client``, ``call`` and ``connect``; a call that may be sent again is a ``repetition`` here, and one of
                the ``repeatable`` where it is served
``sync``        their blocking twins; ``sync_session`` has that of ``Session``, ``sync_server`` those of what serves,
                ``background`` the thread that they use
``server``      ``listen`` and ``Server``: a program that serves as one identity; ``service`` is one run of it
``all_server``  ``serve_all`` and ``AllServer``: as every identity that wants it, each a ``program_binding``
``termination`` what Ctrl-C does to them
``session``     ``Session``: a stream to a peer; ``copying`` joins it to files, ``client_sessions`` holds a program's
``keys``        ``PublicKey`` and its text, the ID52; ``tickets`` is where a peer can be reached, as text
``errors``      everything that can go wrong, as one tree
``messages``    the client protocol; ``limits`` its numbers; ``names`` its rules for names
``protocol``    ``Protocol``: a class that serves, ``peer`` whom and ``call_context`` for how long; ``lifecycle`` is
                what becomes of it; ``handlers`` with ``annotations`` and ``decoding``, ``threads``, ``binding``,
                ``dispatch`` and ``session_host`` bring requests and sessions to it, ``start_queue`` when
``testing``     for tests: ``memory`` serves a protocol without a daemon, ``conformance`` says what every way of serving
                must do alike, both for a ``contact``
``mail``        mail for programs; ``owner`` finds out whose
``affinity``    to which process and event loop a client, session or server belongs, and what happens when that ends
``link``        what is asked of one process of the daemon, and how it ends; ``deadlines`` is under it
``dialler``     the connection of a link, made again whenever it ends; ``connection`` is one of them, ``zmtp``
                and ``decoder`` its bytes
``dealer``      the same over libzmq, for mailboxes that ask for CURVE keys; with ``outbox`` and ``sockets``
``home``        where the daemon's files are
"""

from .client import Client, call, connect
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
    AllServer,
    serve_all,
)
from .serving.server import (
    Server,
    listen,
)
from .session.session import Session
from .tickets import Ticket

__all__ = [
    "AllServer",
    "ApplicationError",
    "BadReply",
    "BadRequest",
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
