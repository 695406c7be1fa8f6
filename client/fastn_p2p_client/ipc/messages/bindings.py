"""Control messages about protocols and their bindings: those of the command line, and of programs that serve."""

from __future__ import annotations

from typing import Any

import msgspec

from .base import Ack, Message, Record

__all__ = [
    "AddProtocol",
    "BindingInfo",
    "BindingList",
    "BindingReply",
    "ChangeWorkerTokens",
    "CheckProtocol",
    "GetBinding",
    "Grant",
    "ListProtocols",
    "ProtocolInfo",
    "ProtocolList",
    "ReloadProtocol",
    "RemoveProtocol",
    "RequestGrant",
    "SetProtocol",
    "StartProtocol",
    "StateReply",
    "StopProtocol",
    "WatchBindings",
    "WorkerTokenReply",
]


class BindingInfo(Record, frozen=True):
    """A binding that programs serve."""

    identity: str
    instance: str
    online: bool
    """True if the owner has brought the identity online."""
    leaving: bool
    """True while it is being removed, until the programs that serve it have stopped."""
    version: bytes
    """Changes whenever the config or the access list changes."""


class ProtocolInfo(Record, frozen=True):
    """A protocol that is installed where the daemon runs."""

    name: str
    code: str
    """Place of its class, ``module:name``."""
    distribution: str
    version: str
    """Version of the distribution."""
    problem: str
    """Reason why it cannot be added to an identity; empty if it can. With a problem, the next fields are not known."""
    description: str = ""
    public: bool = False
    requests: bool = False
    """True if it takes calls."""
    streams: bool = False
    """True if it takes sessions."""
    config_schema: dict[str, Any] = msgspec.field(default_factory=dict)
    """JSON Schema of its config."""


class StateReply(Message, frozen=True, tag=49):
    """State of a binding, with the values of ``BindingStatus.state``."""

    state: str


class WorkerTokenReply(Message, frozen=True, tag=116):
    """A new token of a worker, or what was revoked."""

    key: bytes
    """Public key of the identity, 32 bytes."""
    secret: bytes = b""
    fingerprint: bytes = b""
    """SHA-256 of the daemon's certificate."""
    address: str = ""
    """Address at which the daemon listens."""
    revoked: int = 0
    """Number of tokens that were revoked."""


class ChangeWorkerTokens(Message, frozen=True, tag=50):
    """Make a token with which a worker on another machine serves a binding, or revoke all of them."""

    reply_type = WorkerTokenReply
    identity: str
    protocol: str
    instance: str
    revoke: bool = False


class Grant(Message, frozen=True, tag=47):
    """A program that sends ``RegisterBinding`` with this grant serves the binding. Valid until the daemon restarts."""

    grant: bytes
    key: bytes
    """Public key of the identity, 32 bytes."""
    online: bool
    """True if the owner has brought the identity online. Only then do calls arrive."""
    allow: tuple[str, ...] = ()
    """Access list that the owner has set; the program cannot change it. Empty when the owner has set none."""


class BindingList(Message, frozen=True, tag=51):
    """The bindings of one protocol. The payload is a msgpack array of ``BindingInfo``."""

    revision: bytes


class BindingReply(Message, frozen=True, tag=52):
    """A binding. The payload is its config as JSON."""

    key: bytes
    """Public key of the identity, 32 bytes."""
    workspace: str
    """Path of the binding's own directory."""
    version: bytes
    """Changes whenever the config or the access list changes, as in ``BindingInfo``."""
    allow: tuple[str, ...] = ()
    """Access list, with the entries of ``AddProtocol``."""


class ProtocolList(Message, frozen=True, tag=48):
    protocols: list[ProtocolInfo]


class AddProtocol(Message, frozen=True, tag=15):
    """Bind a protocol to an identity. The payload is the config as JSON; empty stands for ``{}``.

    ``allow`` is the access list. Its entries are ``"everyone"``, ``"peers"`` (the address book), ``"group:NAME"``, an
    ID52 or a petname.
    Empty leaves access to the protocol's declaration: public, or else ``"peers"``.
    """

    reply_type = Ack
    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    program: bool = False
    """True if a program serves it: the daemon keeps config and workspace, and does not look for protocol code."""
    granted: tuple[str, ...] = ()
    """Permissions that the owner grants, as lines of ``Permissions``. A protocol that does not come with the daemon is
    refused with ``PermissionsNeeded`` if it needs others."""
    added: tuple[str, ...] = ()
    """Permissions that the owner grants although the protocol does not declare them, as lines of ``Permissions``."""
    workers: bool = False
    """True if workers on other machines serve it, through the NATS server that the config names."""
    claims: str = ""
    """URL of the store in which its retried calls are claimed; empty for none. Only for what the daemon hosts."""


class RemoveProtocol(Message, frozen=True, tag=16):
    """Remove a binding and, unless ``keep_data`` is set, its workspace directory.

    For a binding that was removed with ``keep_data``, delete the workspace that was kept.
    """

    reply_type = Ack
    identity: str
    protocol: str
    instance: str
    keep_data: bool = False
    """Keep the workspace: the instance finds it again when it is added again."""
    if_empty: bool = False
    """Change nothing if files would be lost; the error is ``workspace-not-empty``."""


class SetProtocol(Message, frozen=True, tag=35):
    """Replace the config or the access list of a binding, or both, also while it serves.

    The payload is the whole new config as JSON; empty keeps the current one. On any error the binding keeps both.
    """

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...] | None = None
    """Access list, with the entries of ``AddProtocol``; None keeps the current one."""
    granted: tuple[str, ...] = ()
    """Further permissions that the owner grants, as in ``AddProtocol``."""
    added: tuple[str, ...] = ()
    """Further permissions that the protocol does not declare, as in ``AddProtocol``."""
    reset_added: bool = False
    """Take back the permissions that were granted with ``added`` before."""
    claims: str | None = None
    """URL of the store of claims, as in ``AddProtocol``; None keeps the current one."""


class CheckProtocol(Message, frozen=True, tag=23):
    """Read the config of a binding from its file and check it. An invalid one is answered by an error."""

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class ReloadProtocol(Message, frozen=True, tag=24):
    """Read the config and the access list of a binding from its file, check them, and apply them.

    If they are invalid, the binding keeps the ones that it has.
    """

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class StartProtocol(Message, frozen=True, tag=25):
    """Serve a binding again that was stopped or has failed."""

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class StopProtocol(Message, frozen=True, tag=26):
    """Stop serving a binding, also after restarts, until ``StartProtocol``."""

    reply_type = StateReply
    identity: str
    protocol: str
    instance: str


class ListProtocols(Message, frozen=True, tag=27):
    """List the protocols that are installed where the daemon runs."""

    reply_type = ProtocolList


class RequestGrant(Message, frozen=True, tag=22):
    """Ask for the permission to serve one protocol instance of an identity."""

    reply_type = Grant
    identity: str
    protocol: str
    instance: str


class WatchBindings(Message, frozen=True, tag=28):
    """Long poll for the bindings of one protocol that programs serve, of all identities.

    The reply comes at once if the revision differs from ``seen``. Otherwise it comes when the bindings change, or after
    a while without a change. By the next request a program confirms that it serves the bindings of the last reply and
    no others.
    """

    reply_type = BindingList
    protocol: str
    watcher: bytes
    """Random, 8 bytes: the same in all requests of one program about one protocol."""
    seen: bytes = b""
    """``revision`` of the previous reply; empty the first time."""
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    """Bindings that this program cannot serve, for ``status``: ``identity/instance`` → reason."""


class GetBinding(Message, frozen=True, tag=29):
    """Get one binding that a program serves."""

    reply_type = BindingReply
    identity: str
    protocol: str
    instance: str
