"""Errors of identities that several daemons serve."""

from __future__ import annotations

from .p2p_error import CredentialError, LocalError, RemoteError


class IdentityElsewhere(LocalError):
    """It needs the identity's key, which is in the vault of another daemon: this one is a replica."""

    code = "identity-elsewhere"
    template = (
        "{what} needs the key of {identity!r}, which is at its owner's daemon, {owner}. Do it there. "
        "To end the replica here: fastn-p2p replica leave {identity}"
    )
    identity: str
    owner: str
    """Name of the owner's daemon, as that has told."""
    what: str


class HomeAway(RemoteError):
    """The binding keeps state, and only its home serves it, which is another daemon of the peer. Nothing was executed.

    The caller's daemon goes to the home by itself, so this means that it has not reached it.
    """

    code = "home-away"
    retryable = True
    transient = True
    template = (
        "{protocol} ({instance}) of {peer} is served by its home only: {daemon}, heard of {seconds} s ago. "
        "It was not reached (endpoint: {endpoint})"
    )
    peer: str
    protocol: str
    instance: str
    daemon: str
    """Name of the home, or words if there is none yet."""
    endpoint: str
    """Id of its endpoint, 64 hex digits; empty if there is none yet."""
    term: int
    """Number of the choice of this home: a higher one replaces it."""
    seconds: int
    """Seconds since the other daemons of the peer have heard of it."""


class OwnerAway(LocalError):
    """The identity's owner has not renewed the delegation of this replica."""

    code = "owner-away"
    retryable = True
    transient = True
    template = "{identity!r} waits for its owner's daemon, {owner}, to renew its delegation: {reason}"
    identity: str
    owner: str
    reason: str


class OwnerReplaced(LocalError):
    """Another daemon renews the replicas of the identity, and chooses the homes of its bindings."""

    code = "owner-replaced"
    template = (
        "the replicas of {identity!r} belong to another daemon with its key, {owner}, since {since}. Do it there. "
        "To have them here instead: fastn-p2p replica adopt {identity}"
    )
    identity: str
    owner: str
    """Name of that daemon."""
    since: str
    """Time of its statement: UTC, ISO 8601."""


class ReplicaNotFound(LocalError):
    """The identity has no replica of this name."""

    code = "replica-not-found"
    template = "{identity!r} has no replica {replica!r}. List them: fastn-p2p replica list"
    identity: str
    replica: str


class ReplicaRemoved(CredentialError):
    """The daemon is no replica of the identity, or not any more: the owner has removed it."""

    code = "replica-removed"
    template = (
        "this daemon is no replica of {identity} any more: its owner has removed it. "
        "To join again: fastn-p2p replica leave NAME, then fastn-p2p replica join with a new code"
    )
    identity: str
