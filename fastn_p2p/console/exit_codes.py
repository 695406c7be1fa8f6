"""Exit codes of ``fastn-p2p``.

Every code of ``fastn_p2p_client.errors.CODES`` has a line in ``EXITS``; a test checks that. ``fastn-p2p --help`` prints
``TABLE``. Published numbers do not change.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final


class ExitCode(IntEnum):
    """Exit code of a command. ``TABLE`` has the meanings."""

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
    LOCKED = 15
    INTERNAL = 70
    STORAGE = 74
    INTERRUPTED = 130
    PIPE = 141


class CommandFailed(Exception):
    """A command has failed. The message says why, and what to do next.

    Args:
        message: one line.
        exit_code: exit code of the command.
        code: stable name of the error, for ``--json``.
        fields: details of the error by name, for ``--json``.
    """

    def __init__(self, message: str, exit_code: ExitCode, code: str, **fields: Any) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.fields = fields


class CommandLineError(CommandFailed):
    """The command line is invalid. The message says how to correct it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE, "usage-error")


TABLE: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "done",
    ExitCode.APPLICATION: "application error: the remote handler refused the request; netcheck, doctor: something is "
    "wrong",
    ExitCode.USAGE: "usage error: the command or the request is invalid",
    ExitCode.DAEMON: "the daemon is not running, busy, of another version, or has failed",
    ExitCode.PEER: "the peer is unknown, unreachable or offline",
    ExitCode.DENIED: "not allowed, or invalid credentials",
    ExitCode.TIMEOUT: "timed out",
    ExitCode.NOT_FOUND: "not found: identity, binding, protocol, instance, command, group, peer name, slot or unit",
    ExitCode.EXISTS: "already exists",
    ExitCode.OVERLOADED: "limit reached",
    ExitCode.LOST: "the connection was lost; the call may have been executed",
    ExitCode.OFFLINE: "the local identity is offline or keeps crashing",
    ExitCode.HANDLER: "the remote handler crashed, or its reply is invalid",
    ExitCode.RESET: "the peer ended the stream early: the data is incomplete",
    ExitCode.PARTIAL: "done, except for the entries that are listed at the end",
    ExitCode.LOCKED: "the vault is locked: fastn-p2p vault unlock",
    ExitCode.INTERNAL: "internal error; please report it",
    ExitCode.STORAGE: "a file cannot be read or written",
    ExitCode.INTERRUPTED: "interrupted, or not confirmed",
    ExitCode.PIPE: "the reader of the output went away",
}
"""Meaning of each exit code."""

EXITS: Final[dict[str, ExitCode]] = {
    "invalid-key": ExitCode.USAGE,
    "invalid-ticket": ExitCode.USAGE,
    "invalid-token": ExitCode.USAGE,
    "not-for-workers": ExitCode.USAGE,
    "invitation-not-redeemed": ExitCode.USAGE,
    "invalid-name": ExitCode.USAGE,
    "invalid-config": ExitCode.USAGE,
    "bad-request": ExitCode.USAGE,
    "bad-message": ExitCode.USAGE,
    "payload-too-large": ExitCode.USAGE,
    "invalid-passphrase": ExitCode.USAGE,
    "vault-not-encrypted": ExitCode.USAGE,
    "last-slot": ExitCode.USAGE,
    "workspace-not-empty": ExitCode.USAGE,
    "permissions-needed": ExitCode.USAGE,
    "identity-ambiguous": ExitCode.USAGE,
    "daemon-not-running": ExitCode.DAEMON,
    "daemon-busy": ExitCode.DAEMON,
    "version-mismatch": ExitCode.DAEMON,
    "peer-unknown": ExitCode.PEER,
    "peer-unreachable": ExitCode.PEER,
    "peer-offline": ExitCode.PEER,
    "owner-away": ExitCode.PEER,
    "home-away": ExitCode.PEER,
    "denied": ExitCode.DENIED,
    "token-refused": ExitCode.DENIED,
    "wrong-daemon": ExitCode.DENIED,
    "peer-blocked": ExitCode.DENIED,
    "invitation-refused": ExitCode.DENIED,
    "forbidden": ExitCode.DENIED,
    "wrong-passphrase": ExitCode.DENIED,
    "wrong-backup-passphrase": ExitCode.DENIED,
    "bad-signature": ExitCode.DENIED,
    "delegation-expired": ExitCode.DENIED,
    "delegation-not-yet-valid": ExitCode.DENIED,
    "wrong-endpoint": ExitCode.DENIED,
    "epoch-retired": ExitCode.DENIED,
    "record-replayed": ExitCode.DENIED,
    "identity-revoked": ExitCode.DENIED,
    "identity-elsewhere": ExitCode.DENIED,
    "owner-replaced": ExitCode.DENIED,
    "replica-removed": ExitCode.DENIED,
    "deadline-exceeded": ExitCode.TIMEOUT,
    "identity-not-found": ExitCode.NOT_FOUND,
    "peer-name-unknown": ExitCode.NOT_FOUND,
    "group-not-found": ExitCode.NOT_FOUND,
    "invitation-not-found": ExitCode.NOT_FOUND,
    "binding-not-found": ExitCode.NOT_FOUND,
    "protocol-not-installed": ExitCode.NOT_FOUND,
    "protocol-not-found": ExitCode.NOT_FOUND,
    "instance-not-found": ExitCode.NOT_FOUND,
    "command-not-found": ExitCode.NOT_FOUND,
    "slot-not-found": ExitCode.NOT_FOUND,
    "replica-not-found": ExitCode.NOT_FOUND,
    "identity-exists": ExitCode.EXISTS,
    "binding-exists": ExitCode.EXISTS,
    "peer-name-taken": ExitCode.EXISTS,
    "group-exists": ExitCode.EXISTS,
    "slot-exists": ExitCode.EXISTS,
    "backup-conflict": ExitCode.EXISTS,
    "daemon-already-running": ExitCode.EXISTS,
    "overloaded": ExitCode.OVERLOADED,
    "passphrase-delayed": ExitCode.OVERLOADED,
    "vault-locked": ExitCode.LOCKED,
    "connection-lost": ExitCode.LOST,
    "outcome-unknown": ExitCode.LOST,
    "identity-offline": ExitCode.OFFLINE,
    "no-identity-online": ExitCode.OFFLINE,
    "identity-failed": ExitCode.OFFLINE,
    "handler-failed": ExitCode.HANDLER,
    "bad-reply": ExitCode.HANDLER,
    "stream-reset": ExitCode.RESET,
    "internal-error": ExitCode.INTERNAL,
    "session-closed": ExitCode.INTERNAL,  # commands do not use a session after closing it
    "used-elsewhere": ExitCode.INTERNAL,  # commands have one process and one event loop
    "storage-failed": ExitCode.STORAGE,
    "storage-held": ExitCode.STORAGE,
    "storage-unavailable": ExitCode.STORAGE,
    "storage-damaged": ExitCode.STORAGE,
    "home-unusable": ExitCode.STORAGE,
    "backup-unusable": ExitCode.STORAGE,
}
"""Error code → exit code, for every code of ``fastn_p2p_client.errors.CODES``."""

PAIRING_EXITS: Final[dict[str, ExitCode]] = {
    "pairing-impossible": ExitCode.PEER,
    "pairing-not-found": ExitCode.PEER,
    "pairing-expired": ExitCode.TIMEOUT,
    "pairing-wrong-code": ExitCode.DENIED,
    "pairing-used-twice": ExitCode.DENIED,
    "pairing-same-identity": ExitCode.USAGE,
    "pairing-name-in-use": ExitCode.EXISTS,
    "pairing-peer-ended": ExitCode.LOST,
    "pairing-peer-refused": ExitCode.DENIED,
}
"""Error code → exit code, for the errors of ``fastn_p2p_actors.pairing.pairing_errors``."""
