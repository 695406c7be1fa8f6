"""What proves that an identity speaks through an endpoint, and how it is checked. No secrets here.

Layout
------

``sodium``             Ed25519 verification
``envelope``           a body, the signature over it, and the prefix that says what kind of body it is
``delegation``         identity → transport endpoint, for a limited time
``peer_record``        where to reach an identity, with its delegations; a ticket is one in text
``replay_protection``  epochs that retire older ones, sequences that expose replays

Times are Unix seconds and always passed in.
"""

from .delegation import (
    CLOCK_SKEW,
    MAX_DELEGATION,
    MAX_LIFETIME,
    SPEAK,
    Delegation,
    check_validity,
    read_delegation,
    verify_delegation,
)
from .peer_record import (
    MAX_ADDRESSES,
    MAX_DELEGATIONS,
    MAX_RECORD,
    MAX_RELAYS,
    PeerRecord,
    check_reachability,
    peek_record,
    read_record,
    verify_record,
)
from .replay_protection import (
    EpochTracker,
    SequenceTracker,
    is_from_future,
)

__all__ = [
    "CLOCK_SKEW",
    "MAX_ADDRESSES",
    "MAX_DELEGATION",
    "MAX_DELEGATIONS",
    "MAX_LIFETIME",
    "MAX_RECORD",
    "MAX_RELAYS",
    "SPEAK",
    "Delegation",
    "EpochTracker",
    "PeerRecord",
    "SequenceTracker",
    "check_reachability",
    "check_validity",
    "is_from_future",
    "peek_record",
    "read_delegation",
    "read_record",
    "verify_delegation",
    "verify_record",
]
