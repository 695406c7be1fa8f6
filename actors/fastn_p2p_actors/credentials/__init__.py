"""Proofs that an identity speaks through an endpoint, and their verification. No secrets of identities are here.

- ``sodium``: Ed25519 verification by libsodium.
- ``envelope``: a body, its signature, and the prefix that names the kind of body.
- ``delegation``, ``compact_delegation``: an identity lets a transport endpoint speak for it, for a limited time.
- ``peer_record``: how to reach an identity, with its delegations. A ticket is a record as text.
- ``invitation``: lets its bearer use some bindings of the identity. It is a ticket, too.
- ``owner_statement``: which daemon renews the replicas of the identity.
- ``signed_revocation``: the last statement of an identity, which ends all its delegations and records.
- ``pkarr``: a signed packet of a directory; ``dns_packet``: the DNS message in it; ``record_packet``: a record in it.
- ``lan_record``: a record that only those who know the identity can read, for the LAN.
- ``meeting_key``, ``password_exchange``: what a pairing derives from its words.
- ``secret_box``, ``public_key_box``: encryption with a shared key, and between two key pairs.
- ``key_transfer``: one secret key on its way to another process, sealed for its receiver.
- ``curve_client``: encryption of the connections to the vault.
- ``replay_protection``: epochs that retire older keys, sequences that expose replayed records.

Times are Unix seconds, and always arguments.
"""

from fastn_p2p_client.tickets import MAX_RECORD

from .delegation import (
    MAX_DELEGATION,
    MAX_LIFETIME,
    SPEAK,
    Delegation,
    check_validity,
    read_delegation,
    verify_delegation,
)
from .envelope import CLOCK_SKEW
from .peer_record import (
    MAX_ADDRESSES,
    MAX_DELEGATIONS,
    MAX_RELAYS,
    EndpointEntry,
    PeerRecord,
    RecordEndpoint,
    check_reachability,
    peek_endpoints,
    peek_record,
    read_record,
    verify_record,
)
from .replay_protection import EpochTracker, SequenceTracker, is_from_future
from .signed_revocation import MAX_REVOCATION, Revocation, is_revocation, peek_revocation, read_revocation

__all__ = [
    "CLOCK_SKEW",
    "MAX_ADDRESSES",
    "MAX_DELEGATION",
    "MAX_DELEGATIONS",
    "MAX_LIFETIME",
    "MAX_RECORD",
    "MAX_RELAYS",
    "MAX_REVOCATION",
    "SPEAK",
    "Delegation",
    "EndpointEntry",
    "EpochTracker",
    "PeerRecord",
    "RecordEndpoint",
    "Revocation",
    "SequenceTracker",
    "check_reachability",
    "check_validity",
    "is_from_future",
    "is_revocation",
    "peek_endpoints",
    "peek_record",
    "peek_revocation",
    "read_delegation",
    "read_record",
    "read_revocation",
    "verify_delegation",
    "verify_record",
]
