"""Delegations: an identity's word that it speaks through a transport endpoint, for a limited time.

QUIC proves who holds the endpoint's key; the delegation proves that the identity wants that endpoint. Together they
prove who is at the other end, without the identity's key ever being near the network.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage, DelegationExpired, DelegationNotYetValid, WrongEndpoint

from .envelope import (
    CLOCK_SKEW,
    Body,
    KeyBytes,
    UnixTime,
    open_signed,
)
from .replay_protection import EpochTracker

__all__ = [
    "CLOCK_SKEW",
    "DELEGATION_VERSION",
    "LINEAGE_BYTES",
    "MAX_CAPABILITIES",
    "MAX_CAPABILITY",
    "MAX_DELEGATION",
    "MAX_LIFETIME",
    "SPEAK",
    "Delegation",
    "check_lifetime",
    "check_times",
    "check_validity",
    "open_delegation",
    "read_delegation",
    "verify_delegation",
]

DELEGATION_VERSION: Final = 1
MAX_DELEGATION: Final = 1024
"""Bytes in a signed delegation."""
MAX_CAPABILITIES: Final = 8
MAX_CAPABILITY: Final = 32
"""Characters in the name of a capability."""
LINEAGE_BYTES: Final = 16
MAX_LIFETIME: Final = 48 * 3600
"""Seconds from the start to the end of a delegation or a record. Vaults sign for half of that. A longer one is refused
wherever it comes from: it would outlive a stolen transport key by as much."""

SPEAK: Final = "speak"
"""The capability to make and take calls and streams in the identity's name."""


class Delegation(Body, frozen=True):
    """The body that the identity signs."""

    endpoint: KeyBytes
    """Public transport key."""
    lineage: Annotated[bytes, Meta(min_length=LINEAGE_BYTES, max_length=LINEAGE_BYTES)]
    """Random name of one daemon's succession of transport keys."""
    epoch: Annotated[int, Meta(ge=0, lt=2**31)]
    """Which key of that succession: a higher epoch, once seen, retires the lower ones."""
    not_before: UnixTime
    not_after: UnixTime
    capabilities: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_CAPABILITY)], ...], Meta(max_length=MAX_CAPABILITIES)
    ]
    """What the endpoint may do in the identity's name; names that are not known mean nothing."""


_decoder = msgspec.msgpack.Decoder(Delegation)


def read_delegation(blob: bytes) -> Delegation:
    """Return the delegation in ``blob``: genuine, of at most ``MAX_LIFETIME``, but perhaps not valid now.

    Raises:
        BadMessage, BadSignature.
    """
    delegation = open_delegation(blob)
    check_lifetime(delegation.not_before, delegation.not_after)
    return delegation


def open_delegation(blob: bytes) -> Delegation:
    """As ``read_delegation``, of whatever lifetime: the caller checks that."""
    return open_signed("delegation", blob, _decoder, DELEGATION_VERSION, MAX_DELEGATION)


def verify_delegation(
    blob: bytes,
    *,
    now: float,
    endpoint: bytes | None = None,
    epochs: EpochTracker | None = None,
    capability: str = SPEAK,
) -> Delegation:
    """The delegation in ``blob``, if it lets ``endpoint`` (None: whichever it names) speak for its identity now.

    A delegation that holds is noted in ``epochs``; one that does not leaves no trace there.

    Raises:
        BadMessage: not a delegation, or none for ``capability``.
        BadSignature, DelegationExpired, DelegationNotYetValid, WrongEndpoint.
        EpochRetired: ``epochs`` knows a newer transport key of the same lineage.
    """
    delegation = read_delegation(blob)
    if endpoint is not None and delegation.endpoint != endpoint:
        raise WrongEndpoint(identity=delegation.key.id52)
    check_validity(delegation, now, capability)
    if epochs is not None:
        epochs.observe(delegation.key, delegation.lineage, delegation.epoch)
    return delegation


def check_validity(delegation: Delegation, now: float, capability: str = SPEAK) -> None:
    """Raises DelegationNotYetValid, DelegationExpired or BadMessage unless it is one for ``capability`` now."""
    check_times(delegation, delegation.not_before, delegation.not_after, now)
    if capability not in delegation.capabilities:
        raise BadMessage(reason=f"a delegation that does not let its endpoint {capability}")


def check_lifetime(start: int, end: int) -> None:
    """Raise BadMessage unless ``end`` comes after ``start``, by at most ``MAX_LIFETIME``."""
    if end <= start:
        raise BadMessage(reason="it ends before it starts")
    if end - start > MAX_LIFETIME:
        raise BadMessage(
            reason=f"it is valid for {(end - start) / 3600:.0f} hours, at most {MAX_LIFETIME // 3600} are accepted"
        )


def check_times(body: Body, start: int, end: int, now: float) -> None:
    """Raise BadMessage for an impossible lifetime; DelegationNotYetValid or DelegationExpired unless ``now`` lies
    between the two, give or take ``CLOCK_SKEW``."""
    check_lifetime(start, end)
    if now < start - CLOCK_SKEW:
        raise DelegationNotYetValid(identity=body.key.id52, seconds=int(start - now))
    if now > end + CLOCK_SKEW:
        raise DelegationExpired(identity=body.key.id52, seconds=int(now - end))
