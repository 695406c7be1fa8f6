"""Exit codes of ``fastn-p2p``: what a script can tell from how a command ended.

Every code of ``fastn_p2p_client.errors.CODES`` has its line in ``EXITS``; a test holds the two together.
``fastn-p2p --help`` prints ``TABLE``. Published numbers do not change.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["EXITS", "TABLE", "Exit", "Misused"]


class Misused(Exception):
    """The command cannot be right as it was typed; says in words how it could be. Ends it with ``Exit.USAGE``."""


class Exit(IntEnum):
    OK = 0
    APPLICATION = 1
    USAGE = 2
    DAEMON = 3
    PEER = 4
    DENIED = 5
    TIMEOUT = 6
    NOT_FOUND = 7
    EXISTS = 8
    OVERLOADED = 9
    LOST = 10
    OFFLINE = 11
    HANDLER = 12
    RESET = 13
    PARTIAL = 14
    INTERNAL = 70
    STORAGE = 74
    INTERRUPTED = 130
    PIPE = 141


TABLE: Final[dict[Exit, str]] = {
    Exit.OK: "done",
    Exit.APPLICATION: "application error: the remote handler refused the request",
    Exit.USAGE: "usage error: the command or the request is invalid",
    Exit.DAEMON: "the daemon is not running, busy, of another version, or has failed",
    Exit.PEER: "the peer is unknown, unreachable or offline",
    Exit.DENIED: "not allowed, or invalid credentials",
    Exit.TIMEOUT: "timed out",
    Exit.NOT_FOUND: "not found: identity, binding, protocol, instance, command or peer name",
    Exit.EXISTS: "already exists",
    Exit.OVERLOADED: "limit reached",
    Exit.LOST: "the connection was lost; the call may have been executed",
    Exit.OFFLINE: "the local identity is offline or keeps crashing",
    Exit.HANDLER: "the remote handler crashed, or its reply is invalid",
    Exit.RESET: "the peer ended the stream early: the data is incomplete",
    Exit.PARTIAL: "done, except for what is named at the end",
    Exit.INTERNAL: "internal error; please report it",
    Exit.STORAGE: "a file could not be read or written",
    Exit.INTERRUPTED: "interrupted, or not confirmed",
    Exit.PIPE: "the reader of the output went away",
}
"""What each exit code means, for people."""

EXITS: Final[dict[str, Exit]] = {
    "invalid-key": Exit.USAGE,
    "invalid-ticket": Exit.USAGE,
    "invalid-name": Exit.USAGE,
    "invalid-config": Exit.USAGE,
    "bad-request": Exit.USAGE,
    "bad-message": Exit.USAGE,
    "payload-too-large": Exit.USAGE,
    "workspace-not-empty": Exit.USAGE,
    "identity-ambiguous": Exit.USAGE,
    "daemon-not-running": Exit.DAEMON,
    "daemon-busy": Exit.DAEMON,
    "version-mismatch": Exit.DAEMON,
    "peer-unknown": Exit.PEER,
    "peer-unreachable": Exit.PEER,
    "peer-offline": Exit.PEER,
    "denied": Exit.DENIED,
    "forbidden": Exit.DENIED,
    "bad-signature": Exit.DENIED,
    "delegation-expired": Exit.DENIED,
    "delegation-not-yet-valid": Exit.DENIED,
    "wrong-endpoint": Exit.DENIED,
    "epoch-retired": Exit.DENIED,
    "record-replayed": Exit.DENIED,
    "deadline-exceeded": Exit.TIMEOUT,
    "identity-not-found": Exit.NOT_FOUND,
    "peer-name-unknown": Exit.NOT_FOUND,
    "binding-not-found": Exit.NOT_FOUND,
    "protocol-not-installed": Exit.NOT_FOUND,
    "protocol-not-found": Exit.NOT_FOUND,
    "instance-not-found": Exit.NOT_FOUND,
    "command-not-found": Exit.NOT_FOUND,
    "identity-exists": Exit.EXISTS,
    "binding-exists": Exit.EXISTS,
    "peer-name-taken": Exit.EXISTS,
    "daemon-already-running": Exit.EXISTS,
    "overloaded": Exit.OVERLOADED,
    "connection-lost": Exit.LOST,
    "identity-offline": Exit.OFFLINE,
    "no-identity-online": Exit.OFFLINE,
    "identity-failed": Exit.OFFLINE,
    "handler-failed": Exit.HANDLER,
    "bad-reply": Exit.HANDLER,
    "stream-reset": Exit.RESET,
    "internal-error": Exit.INTERNAL,
    "session-closed": Exit.INTERNAL,  # commands do not close what they go on to use
    "used-elsewhere": Exit.INTERNAL,  # nor have they more than one process and event loop
    "storage-failed": Exit.STORAGE,
    "storage-damaged": Exit.STORAGE,
    "home-unusable": Exit.STORAGE,
}
"""The exit code for every code of ``fastn_p2p_client.errors.CODES``."""
