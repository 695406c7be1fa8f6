"""Events of the vault's own requests, for the audit log: what was signed or created, never the bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from fastn_p2p_actors.credentials import read_revocation
from fastn_p2p_actors.credentials.delegation import peek_delegation
from fastn_p2p_client.keys import id52_of

from .messages import (
    AdoptEnrolled,
    AdoptKeys,
    CreateKey,
    DeleteKey,
    EndpointKey,
    EndReplica,
    EnrolledReplicas,
    EnrolReplica,
    GetTransport,
    IdentityKey,
    NoteOwner,
    PromoteHome,
    RevokedKey,
    RevokeKey,
    RotateTransportKey,
    SignDelegation,
    SignedDelegation,
    SignedInvitation,
    SignedRecord,
    SignedRecordPacket,
    SignInvitation,
    SignPacket,
    SignRecord,
    SignReplica,
    TransportKey,
)

Record: TypeAlias = Callable[[str, str, Mapping[str, object]], object]
"""``AuditLog.record``: actor, event, fields."""
VAULT: Final = "vault"


def record_reply(record: Record, role: str, request: msgspec.Struct, reply: object) -> None:
    """Record a request of ``role`` that the vault has carried out."""
    event, fields = _event_of(request, reply)
    if event:
        record(VAULT, event, {**fields, "for": role})


def _event_of(request: msgspec.Struct, reply: object) -> tuple[str, dict[str, object]]:
    match request, reply:
        case SignPacket(identity), SignedRecordPacket():
            return "packet-signed", {"identity": identity, "expires": reply.expires, "withdrawn": request.withdrawn}
        case SignRecord(identity), SignedRecord():
            return "record-signed", {
                "identity": identity,
                "expires": reply.expires,
                "endpoints": 1 + len(request.others),
            }
        case SignDelegation(identity), SignedDelegation():
            endpoint = peek_delegation(reply.blob).endpoint.hex()
            return "delegation-signed", {"identity": identity, "endpoint": endpoint, "until": reply.not_after}
        case SignInvitation(identity), SignedInvitation():
            return "invitation-signed", {
                "identity": identity,
                "bindings": list(request.bindings),
                "uses": request.uses,
                "expires": request.expires,
            }
        case SignReplica(identity, endpoint), SignedDelegation():
            return "replica-signed", {"identity": identity, "endpoint": endpoint.hex(), "until": reply.not_after}
        case EnrolReplica(identity, endpoint, name), EnrolledReplicas():
            return "replica-added", {"identity": identity, "endpoint": endpoint.hex(), "name": name}
        case EndReplica(identity, replica), EnrolledReplicas():
            return "replica-removed", {"identity": identity, "replica": replica, "at_once": request.at_once}
        case AdoptEnrolled(identity), EnrolledReplicas():
            return "replicas-adopted", {"identity": identity, "without": list(request.without)}
        case NoteOwner(identity), EnrolledReplicas():
            return "replicas-owner-shown", {"identity": identity, "is_here": reply.owner is None or reply.owner.is_here}
        case PromoteHome(identity, protocol, instance, replica), EnrolledReplicas():
            return "home-moved", {"identity": identity, "binding": f"{protocol}/{instance}", "replica": replica}
        case CreateKey(name), IdentityKey():
            return "key-created", {"identity": name, "id52": id52_of(reply.public)}
        case RevokeKey(name), RevokedKey():
            successor = read_revocation(reply.revocation).successor_id52
            return "key-revoked", {"identity": name, "successor": successor}
        case AdoptKeys(), _:
            return "keys-restored", {"identities": [name for _, name in request.names]}
        case RotateTransportKey(), EndpointKey():
            return "transport-rotated", {"endpoint": reply.public.hex(), "epoch": reply.epoch}
        case DeleteKey(name), _:
            return "key-deleted", {"identity": name}
        case GetTransport(), TransportKey():
            return "transport-key-given", {"endpoint": reply.public.hex(), "epoch": reply.epoch}
    return "", {}
