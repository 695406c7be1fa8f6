"""Errors of delegations and peer records."""

from __future__ import annotations

import time

from .p2p_error import CredentialError


class BadSignature(CredentialError):
    """The signature of a delegation or peer record does not match."""

    code = "bad-signature"
    template = (
        "the signature on the {what} of {identity} is not valid. Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    what: str
    identity: str


class DelegationExpired(CredentialError):
    """A ticket or delegation is too old."""

    code = "delegation-expired"
    transient = True
    template = (
        "the ticket or delegation of {identity} expired on {when} ({seconds} s ago). Ask the peer for a new one: "
        "fastn-p2p ticket NAME. If it is new, check the clocks of both machines"
    )
    identity: str
    seconds: int
    """Seconds since it expired."""

    def __str__(self) -> str:
        at = max(0, min(time.time() - self.seconds, 2**36))  # the number may come from a peer
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
        return self.template.format(identity=self.identity, when=when, seconds=self.seconds)


class DelegationNotYetValid(CredentialError):
    """A delegation starts in ``seconds`` seconds."""

    code = "delegation-not-yet-valid"
    transient = True
    template = (
        "the delegation of {identity} starts in {seconds} s. Check the clocks of both machines: fastn-p2p netcheck"
    )
    identity: str
    seconds: int


class WrongEndpoint(CredentialError):
    """A delegation names another endpoint than the one that presents it."""

    code = "wrong-endpoint"
    template = (
        "the delegation of {identity} is for another endpoint than the one that presents it. "
        "Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    identity: str


class EpochRetired(CredentialError):
    """A delegation is of an older epoch than one that has been seen."""

    code = "epoch-retired"
    template = (
        "the delegation of {identity} has epoch {epoch}, which the newer epoch {newest} has replaced. "
        "Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    identity: str
    epoch: int
    newest: int


class RecordReplayed(CredentialError):
    """A peer record is older than one that has been seen."""

    code = "record-replayed"
    template = (
        "the record of {identity} has sequence {sequence}, and sequence {newest} is known already. "
        "Ask the peer for a new ticket: fastn-p2p ticket NAME"
    )
    identity: str
    sequence: int
    newest: int


class IdentityRevoked(CredentialError):
    """The identity was revoked with its own key. Nothing makes it valid again."""

    code = "identity-revoked"
    template = "{identity} was revoked on {revoked}, {step}"
    identity: str
    """Petname or ID52 of a peer; name of an identity of this daemon."""
    revoked: str
    """Time in UTC, ISO 8601, as the revocation says."""
    successor: str
    """ID52 of the identity that takes its place; empty without one."""

    def __str__(self) -> str:
        from ..plain_text import plain

        if not self.successor:
            step = "without a successor. Ask its owner for a new ID52"
        elif len(self.identity) == len(self.successor) and self.identity.isalnum():
            step = f"with the successor {self.successor}. If its owner confirms that, use the successor"
        else:
            accept = f"fastn-p2p peer accept-successor {self.identity}"
            step = f"with the successor {self.successor}. If it is a peer and its owner confirms that: {accept}"
        return plain(self.template.format(identity=self.identity, revoked=self.revoked, step=step))
