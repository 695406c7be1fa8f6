"""Delegations: an identity lets a transport endpoint speak for it, for a limited time.

QUIC proves that the peer daemon holds the endpoint's key. The delegation proves that the identity chose that endpoint.
Together they prove the peer's identity, and the identity's key never comes near the network.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage, DelegationExpired, DelegationNotYetValid, WrongEndpoint

from .envelope import CLOCK_SKEW, Body, KeyBytes, UnixTime, open_signed, peek_signed
from .replay_protection import EpochTracker

DELEGATION_VERSION: Final = 1
MAX_DELEGATION: Final = 1024
"""Bytes of a signed delegation."""
MAX_CAPABILITIES: Final = 8
"""Capabilities of one delegation."""
MAX_CAPABILITY: Final = 32
"""Characters of a capability's name."""
LINEAGE_BYTES: Final = 16
"""Bytes of a lineage's name."""
MAX_LIFETIME: Final = 48 * 3600
"""Seconds from the start to the end of a delegation or a record. Vaults sign for half of that. A longer one is always
rejected, because it would outlive a stolen transport key by as much."""

SPEAK: Final = "speak"
"""Capability to make and accept calls and sessions in the identity's name."""


class Delegation(Body, frozen=True):
    """Body that the identity signs."""

    endpoint: KeyBytes
    """Public transport key."""
    lineage: Annotated[bytes, Meta(min_length=LINEAGE_BYTES, max_length=LINEAGE_BYTES)]
    """Random name of one daemon's succession of transport keys."""
    epoch: Annotated[int, Meta(ge=0, lt=2**31)]
    """Number of the key in that succession. Once a higher epoch was seen, lower ones are retired."""
    not_before: UnixTime
    not_after: UnixTime
    capabilities: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_CAPABILITY)], ...], Meta(max_length=MAX_CAPABILITIES)
    ]
    """Rights of the endpoint in the identity's name. Unknown names have no effect."""


_decoders: Final = {DELEGATION_VERSION: msgspec.msgpack.Decoder(Delegation)}


def read_delegation(blob: bytes) -> Delegation:
    """Return the delegation in ``blob``. It is genuine and lasts at most ``MAX_LIFETIME``, but may not be valid now.

    Raises:
        BadMessage: it is no delegation, or lasts too long.
        BadSignature: its identity has not signed it.
    """
    delegation = open_delegation(blob)
    check_lifetime(delegation.not_before, delegation.not_after)
    return delegation


def open_delegation(blob: bytes) -> Delegation:
    """Return the delegation in ``blob`` without checking its lifetime; the caller must check it.

    Raises:
        BadMessage: it is no delegation.
        BadSignature: its identity has not signed it.
    """
    return open_signed("delegation", blob, _decoders, MAX_DELEGATION)


def peek_delegation(blob: bytes) -> Delegation:
    """Return the delegation in ``blob`` without verifying its signature. It must not be trusted.

    Raises:
        BadMessage: it is no delegation.
    """
    return peek_signed("delegation", blob, _decoders, MAX_DELEGATION)


def verify_delegation(
    blob: bytes,
    *,
    now: float,
    endpoint: bytes | None = None,
    epochs: EpochTracker | None = None,
    capability: str = SPEAK,
) -> Delegation:
    """Return the delegation in ``blob``, if it lets ``endpoint`` speak for its identity now.

    Args:
        blob: the signed delegation.
        now: Unix time.
        endpoint: transport key of the peer daemon; None to accept any.
        epochs: epochs seen so far. A valid delegation is recorded there; an invalid one is not.
        capability: the capability that it must have.

    Raises:
        BadMessage: it is no delegation, lasts too long, or lacks ``capability``.
        BadSignature: its identity has not signed it.
        DelegationExpired: it is not valid any more.
        DelegationNotYetValid: it is not valid yet.
        WrongEndpoint: it is for another endpoint.
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
    """Raise DelegationNotYetValid, DelegationExpired or BadMessage unless it grants ``capability`` now."""
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
    """Check that ``now`` is between ``start`` and ``end``, give or take ``CLOCK_SKEW``.

    Raises:
        BadMessage: the lifetime is not possible.
        DelegationNotYetValid: ``start`` is in the future.
        DelegationExpired: ``end`` has passed.
    """
    check_lifetime(start, end)
    if now < start - CLOCK_SKEW:
        raise DelegationNotYetValid(identity=body.key.id52, seconds=int(start - now))
    if now > end + CLOCK_SKEW:
        raise DelegationExpired(identity=body.key.id52, seconds=int(now - end))
