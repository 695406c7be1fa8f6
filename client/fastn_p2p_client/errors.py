"""Everything that can go wrong, as one tree.

::

    P2PError                     what the system says: ``code`` is stable, ``retryable`` means worth a retry
    ├── UsageError               the caller asked for something that cannot be
    │   ├── InvalidKey           not an ID52, or no valid key
    │   ├── InvalidTicket        not a ticket, or one that does not hold together
    │   ├── InvalidName          a name that no identity, protocol, instance or peer can have
    │   ├── InvalidConfig        a protocol's config, with the field at fault
    │   ├── BadRequest           a request that does not fit the handler's annotation
    │   ├── BadReply             a reply that does not fit the type that the caller named
    │   ├── BadMessage           bytes that are no message of this protocol
    │   ├── SessionClosed        a session that was closed or reset on this side
    │   ├── UsedElsewhere        an object that belongs to another process or event loop; nothing was sent
    │   └── PayloadTooLarge
    ├── LocalError               this machine's daemon
    │   ├── DaemonNotRunning
    │   ├── DaemonAlreadyRunning
    │   ├── HomeUnusable         the home directory is somebody else's, or cannot be written
    │   ├── DaemonBusy           an actor of the daemon is down at the moment; the supervisor is restarting it
    │   ├── VersionMismatch
    │   ├── IdentityNotFound
    │   ├── IdentityExists
    │   ├── IdentityOffline      the identity that a call is made from
    │   ├── IdentityFailed       its process keeps crashing
    │   ├── IdentityAmbiguous    several are online and none was named
    │   ├── NoIdentityOnline     none is online and none was named
    │   ├── BindingExists
    │   ├── BindingNotFound
    │   ├── WorkspaceNotEmpty    files of a binding would be lost
    │   ├── ProtocolNotInstalled
    │   ├── PeerNameTaken
    │   ├── PeerNameUnknown      nobody in the address book has this name
    │   ├── StorageFailed
    │   ├── StorageDamaged       a file that is not what the daemon wrote
    │   └── Forbidden            a request that this role may not make
    ├── RemoteError              the other side, or the way to it
    │   ├── PeerUnknown          no resolver knows the peer
    │   ├── PeerUnreachable
    │   ├── PeerOffline          the daemon answers; the identity is not online there
    │   ├── ProtocolNotFound
    │   ├── InstanceNotFound
    │   ├── CommandNotFound
    │   ├── Denied
    │   └── HandlerFailed        the handler raised something undeclared, or its process died before it could start
    ├── CredentialError          a delegation or record that does not hold
    │   ├── BadSignature
    │   ├── DelegationExpired
    │   ├── DelegationNotYetValid
    │   ├── WrongEndpoint
    │   ├── EpochRetired
    │   └── RecordReplayed
    ├── DeadlineExceeded
    ├── Overloaded
    ├── ConnectionLost           a process or connection died with the call in flight: it may have been executed
    ├── StreamReset              the other side ended a session before its end, with a code
    └── InternalError            a defect of ours

    ApplicationError             what the remote handler said, on purpose; not a P2PError
"""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, dataclass_transform

__all__ = [
    "CODES",
    "ApplicationError",
    "BadMessage",
    "BadReply",
    "BadRequest",
    "BadSignature",
    "BindingExists",
    "BindingNotFound",
    "CommandNotFound",
    "ConnectionLost",
    "CredentialError",
    "DaemonAlreadyRunning",
    "DaemonBusy",
    "DaemonNotRunning",
    "DeadlineExceeded",
    "DelegationExpired",
    "DelegationNotYetValid",
    "Denied",
    "EpochRetired",
    "Forbidden",
    "HandlerFailed",
    "HomeUnusable",
    "IdentityAmbiguous",
    "IdentityExists",
    "IdentityFailed",
    "IdentityNotFound",
    "IdentityOffline",
    "InstanceNotFound",
    "InternalError",
    "InvalidConfig",
    "InvalidKey",
    "InvalidName",
    "InvalidTicket",
    "LocalError",
    "NoIdentityOnline",
    "Overloaded",
    "P2PError",
    "PayloadTooLarge",
    "PeerNameTaken",
    "PeerNameUnknown",
    "PeerOffline",
    "PeerUnknown",
    "PeerUnreachable",
    "ProtocolNotFound",
    "ProtocolNotInstalled",
    "RecordReplayed",
    "RemoteError",
    "SessionClosed",
    "StorageDamaged",
    "StorageFailed",
    "StreamReset",
    "UsageError",
    "UsedElsewhere",
    "VersionMismatch",
    "WorkspaceNotEmpty",
    "WrongEndpoint",
    "error_from",
    "is_transient",
]

T = TypeVar("T")

CODES: Final[dict[str, type[P2PError]]] = {}
"""Every stable code and its class: the table that travels on both protocols."""


@dataclass_transform(eq_default=False, kw_only_default=True)
class P2PError(Exception):
    """What the system says. Fields are keyword arguments and travel over both protocols.

    ``code`` never changes between releases. ``retryable`` is True when the same request can succeed
    later without anyone changing anything. ``transient`` is True when a process that is being restarted causes this
    error; see ``is_transient``.
    """

    code: ClassVar[str] = ""
    retryable: ClassVar[bool] = False
    transient: ClassVar[bool] = False
    template: ClassVar[str] = "{code}"
    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._names = (*cls._names, *inspect.get_annotations(cls))
        if cls.__dict__.get("code") and cls.__module__ == __name__:  # nobody else knows those of programs
            CODES[cls.code] = cls

    if not TYPE_CHECKING:  # type checkers see a dataclass; real ones would triple the time this module takes to load

        def __init__(self, **fields: Any) -> None:
            if fields.keys() != set(self._names):
                raise TypeError(f"{type(self).__name__} takes exactly {', '.join(self._names) or 'nothing'}")
            super().__init__()
            self.__dict__.update(fields)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the typed fields."""
        return cls._names

    def fields(self) -> dict[str, Any]:
        """The typed fields by name, as they travel."""
        return {name: getattr(self, name) for name in self._names}

    def __str__(self) -> str:
        """One line that can be shown anywhere: parts of it can have come from a peer. ``fields`` has them exactly."""
        from .plain_text import plain  # errors are loaded by programs that never see one

        return plain(self.template.format(code=self.code, **self.fields()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (error_from, (self.code, self.fields()))


class UsageError(P2PError):
    """The caller asked for something that cannot be."""


class LocalError(P2PError):
    """This machine's daemon cannot do it."""


class RemoteError(P2PError):
    """The other side, or the way to it."""


class CredentialError(P2PError):
    """A delegation or a peer record that does not hold."""


# ── usage ────────────────────────────────────────────────────────────────────────────────────────


class InvalidKey(UsageError):
    code = "invalid-key"
    template = "{text!r} is not a public key: {reason}. Copy the ID52 again: `fastn-p2p identity list` prints it"
    text: str
    reason: str


class InvalidTicket(UsageError):
    code = "invalid-ticket"
    template = "not a valid ticket: {reason}. Ask the peer for a new one: `fastn-p2p ticket NAME` prints it"
    reason: str


class InvalidName(UsageError):
    code = "invalid-name"
    template = "{name!r} cannot be the name of {what}: {reason}"
    name: str
    what: str
    reason: str


class InvalidConfig(UsageError):
    code = "invalid-config"
    template = "the config of {protocol} is not valid: {reason}"
    protocol: str
    reason: str


class BadRequest(UsageError):
    code = "bad-request"
    template = "the request does not fit {protocol}: {reason}"
    protocol: str
    reason: str


class BadReply(UsageError):
    code = "bad-reply"
    template = "the reply of {protocol} is not what was expected: {reason}"
    protocol: str
    reason: str


class BadMessage(UsageError):
    code = "bad-message"
    template = "not a message of this protocol: {reason}"
    reason: str


class SessionClosed(UsageError):
    code = "session-closed"
    template = "{what} after the session was closed on this side"
    what: str


class UsedElsewhere(UsageError):
    code = "used-elsewhere"
    template = "{what} cannot be used here: {reason}"
    what: str
    reason: str


class PayloadTooLarge(UsageError):
    code = "payload-too-large"
    template = "the payload has {size} bytes, the limit is {limit}; send large data through a stream"
    size: int
    limit: int


# ── this daemon ──────────────────────────────────────────────────────────────────────────────────


class DaemonNotRunning(LocalError):
    code = "daemon-not-running"
    retryable = True
    transient = True
    template = "no daemon is running for {home}; start one with `fastn-p2p daemon`"
    home: str


class DaemonAlreadyRunning(LocalError):
    code = "daemon-already-running"
    template = "a daemon is already running for {home} (pid {pid}); stop it first or use another --home"
    home: str
    pid: int


class HomeUnusable(LocalError):
    code = "home-unusable"
    template = "{path} cannot be used by the daemon: {reason}"
    path: str
    reason: str


class DaemonBusy(LocalError):
    code = "daemon-busy"
    retryable = True
    transient = True
    template = (
        "the daemon's {actor} process is not answering and is being restarted; try again, and see `fastn-p2p status`"
    )
    actor: str


class VersionMismatch(LocalError):
    code = "version-mismatch"
    template = "this program speaks protocol version {ours}, the daemon speaks {theirs}; upgrade the older of the two"
    ours: int
    theirs: int


class IdentityNotFound(LocalError):
    code = "identity-not-found"
    template = (
        "there is no identity {identity!r} here; `fastn-p2p identity list` lists them, "
        "`fastn-p2p create-identity {identity}` creates it"
    )
    identity: str


class IdentityExists(LocalError):
    code = "identity-exists"
    template = "an identity {identity!r} already exists. Choose another name"
    identity: str


class IdentityOffline(LocalError):
    code = "identity-offline"
    transient = True
    template = "the identity {identity!r} is not online; `fastn-p2p identity-online {identity}` brings it online"
    identity: str


class IdentityFailed(LocalError):
    code = "identity-failed"
    template = "the process of identity {identity!r} does not stay up: {reason}. See `fastn-p2p status` and the log"
    identity: str
    reason: str


class IdentityAmbiguous(LocalError):
    code = "identity-ambiguous"
    template = "say which identity makes the call (`--as NAME`); online: {online}"
    online: list[str]

    def __str__(self) -> str:
        return f"several identities are online; say which one makes the call (`--as NAME`): {', '.join(self.online)}"


class NoIdentityOnline(LocalError):
    code = "no-identity-online"
    transient = True
    template = "no identity is online here; `fastn-p2p identity-online NAME` brings one online"


class BindingExists(LocalError):
    code = "binding-exists"
    template = "{identity!r} already has {protocol} as {instance!r}; choose another `--alias` or remove that one first"
    identity: str
    protocol: str
    instance: str


class BindingNotFound(LocalError):
    code = "binding-not-found"
    template = "{identity!r} has no {protocol} as {instance!r}; `fastn-p2p status` lists what it has"
    identity: str
    protocol: str
    instance: str


class WorkspaceNotEmpty(LocalError):
    code = "workspace-not-empty"
    template = (
        "{protocol} ({instance}) of {identity} holds {holds}. Nothing was changed: "
        "`--yes` deletes that, `--keep-data` keeps it for when the protocol is added again"
    )
    identity: str
    protocol: str
    instance: str
    holds: str


class ProtocolNotInstalled(LocalError):
    code = "protocol-not-installed"
    template = "no protocol {protocol!r} is installed here; installed: {installed}"
    protocol: str
    installed: list[str]

    def __str__(self) -> str:
        installed = ", ".join(self.installed) or "none"
        return (
            f"no protocol {self.protocol!r} is installed here; installed: {installed}. Install its package where the "
            "daemon runs, and try again"
        )


class PeerNameTaken(LocalError):
    code = "peer-name-taken"
    template = (
        "the address book has another peer named {name!r}; choose another name or `fastn-p2p peer remove {name}` first"
    )
    name: str


class PeerNameUnknown(LocalError):
    code = "peer-name-unknown"
    template = "the address book has no peer named {name!r}; `fastn-p2p peer list` lists them"
    name: str


class StorageFailed(LocalError):
    code = "storage-failed"
    template = "cannot write {path}: {reason}. Nothing was changed"
    path: str
    reason: str


class StorageDamaged(LocalError):
    code = "storage-damaged"
    template = "{path} cannot be used: {reason}. Put back a copy of it, or remove it"
    path: str
    reason: str


class Forbidden(LocalError):
    code = "forbidden"
    template = "{role} may not ask for {request}"
    role: str
    request: str


# ── the other side ───────────────────────────────────────────────────────────────────────────────


class PeerUnknown(RemoteError):
    code = "peer-unknown"
    retryable = True
    template = (
        "nothing is known about {peer}; ask for its ticket and `fastn-p2p peer add TICKET --name NAME`. "
        "An identity of this daemon has to be online"
    )
    peer: str


class PeerUnreachable(RemoteError):
    code = "peer-unreachable"
    retryable = True
    template = "{peer} cannot be reached: {reason}. Is its daemon running?"
    peer: str
    reason: str


class PeerOffline(RemoteError):
    code = "peer-offline"
    retryable = True
    transient = True
    template = "the daemon of {peer} answers, but the identity is not online there"
    peer: str


class ProtocolNotFound(RemoteError):
    code = "protocol-not-found"
    transient = True
    template = "{peer} does not offer {protocol} to you"
    peer: str
    protocol: str


class InstanceNotFound(RemoteError):
    code = "instance-not-found"
    transient = True
    template = "{peer} offers {protocol}, but has no instance {instance!r} of it for you"
    peer: str
    protocol: str
    instance: str


class CommandNotFound(RemoteError):
    code = "command-not-found"
    template = "{protocol} at {peer} has no command {command!r}"
    peer: str
    protocol: str
    command: str


class Denied(RemoteError):
    code = "denied"
    template = "{peer} does not let you use {protocol} ({instance}); its owner can add you with `--allow`"
    peer: str
    protocol: str
    instance: str


class HandlerFailed(RemoteError):
    code = "handler-failed"
    transient = True
    template = "the handler of {protocol} at {peer} failed: {reason}"
    peer: str
    protocol: str
    reason: str


# ── credentials ──────────────────────────────────────────────────────────────────────────────────


class BadSignature(CredentialError):
    code = "bad-signature"
    template = "the signature on the {what} of {identity} is not valid"
    what: str
    identity: str


class DelegationExpired(CredentialError):
    code = "delegation-expired"
    template = (
        "the ticket or delegation of {identity} expired on {when} ({seconds} s ago); ask for a new one: "
        "`fastn-p2p ticket` prints it there. If it is a fresh one, is a clock wrong?"
    )
    identity: str
    seconds: int
    """Since it expired."""

    def __str__(self) -> str:
        at = max(0, min(time.time() - self.seconds, 2**36))  # others may have sent any number
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
        return self.template.format(identity=self.identity, when=when, seconds=self.seconds)


class DelegationNotYetValid(CredentialError):
    code = "delegation-not-yet-valid"
    template = "the delegation of {identity} starts in {seconds} s; is a clock wrong?"
    identity: str
    seconds: int


class WrongEndpoint(CredentialError):
    code = "wrong-endpoint"
    template = "the delegation of {identity} is for another endpoint than the one that presents it"
    identity: str


class EpochRetired(CredentialError):
    code = "epoch-retired"
    template = "the delegation of {identity} has epoch {epoch}; {newest} has been seen and retires it"
    identity: str
    epoch: int
    newest: int


class RecordReplayed(CredentialError):
    code = "record-replayed"
    template = "the record of {identity} has sequence {sequence}; {newest} is known already"
    identity: str
    sequence: int
    newest: int


# ── any hop ──────────────────────────────────────────────────────────────────────────────────────


class DeadlineExceeded(P2PError):
    code = "deadline-exceeded"
    retryable = True
    template = "no answer within {seconds:g} s; it may have been executed"
    seconds: float


class Overloaded(P2PError):
    code = "overloaded"
    retryable = True
    template = "limit reached: {what} (limit {limit}). Try again more slowly"
    what: str
    limit: int


class ConnectionLost(P2PError):
    code = "connection-lost"
    retryable = False
    transient = True
    template = "{what} went away while the call was in flight; it may have been executed"
    what: str


class StreamReset(P2PError):
    code = "stream-reset"
    transient = True
    template = "the other side ended the session early (code {reset_code}): what was sent or received is incomplete"
    reset_code: int


class InternalError(P2PError):
    code = "internal-error"
    template = "internal error: {reason}. Please report it"
    reason: str


def is_transient(error: P2PError, connected_before: bool) -> bool:
    """Return whether ``error`` passes once a process of a daemon has been restarted, so that a retry is worth it.

    Args:
        connected_before: the same callee has answered this program before. Until then only a broken connection is
            transient: the other errors mean a wrong name or address. Afterwards they are seen during a restart.
    """
    return error.transient and (connected_before or isinstance(error, ConnectionLost | DaemonBusy | StreamReset))


class ApplicationError(Exception):
    """What the remote handler said, on purpose.

    Attributes:
        kind: the handler's name for the error, for instance ``"MessageTooLong"``.
        message: words for people.
        payload: the error's data; what the handler gave, and plain values where it has come from a peer.
    """

    def __init__(self, kind: str, message: str, payload: Any = None) -> None:
        super().__init__(kind, message, payload)
        self.kind = kind
        self.message = message
        self.payload = payload

    def __str__(self) -> str:
        """Text that can be shown anywhere; ``kind`` and ``message`` have it exactly."""
        from .plain_text import plain_lines

        return plain_lines(f"{self.kind}: {self.message}" if self.message else self.kind)

    def payload_as(self, kind: type[T]) -> T:
        """The payload as a ``kind``: the type of which the handler has given an instance.

        Raises:
            BadReply: it does not fit; says which field.
        """
        from msgspec import ValidationError, convert  # errors are loaded by programs that never see one

        if isinstance(self.payload, kind):
            return self.payload
        try:
            return convert(self.payload, kind)
        except ValidationError as error:
            raise BadReply(protocol=f"the error {self.kind}", reason=str(error)) from error


def error_from(code: str, fields: dict[str, Any]) -> P2PError:
    """The exception that ``code`` stands for; an unknown code or unfitting fields become ``InternalError``."""
    cls = CODES.get(code)
    if cls is None:
        return InternalError(reason=f"unknown error code {code[:64]!r}")
    try:
        error = cls(**fields)
        str(error)  # a field of the wrong type must not surface where somebody prints the error
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return InternalError(reason=f"malformed error {code!r}")
    return error
