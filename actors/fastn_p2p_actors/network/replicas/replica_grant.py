"""Grant of an owner's daemon to a replica: the payload of the reply to ``RenewReplica``."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.tickets import MAX_RECORD

from ...credentials.delegation import MAX_DELEGATION
from ...credentials.owner_statement import MAX_OWNER_STATEMENT
from ...credentials.pkarr import MAX_BODY
from ..serving.binding_homes import MAX_HOMES, BindingHome


class ReplicaGrant(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Signed by the identity in all its parts but the homes, for which the connection to the owner's daemon stands."""

    delegation: Annotated[bytes, Meta(max_length=MAX_DELEGATION)]
    """For the replica's endpoint; empty if it has not asked for one."""
    record: Annotated[bytes, Meta(max_length=MAX_RECORD)]
    """Newest record of the identity."""
    packet: Annotated[bytes, Meta(max_length=MAX_BODY)]
    """The same for directories; empty if the owner publishes none."""
    homes: Annotated[tuple[BindingHome, ...], Meta(max_length=MAX_HOMES)] | None = None
    """Homes of all bindings that have one; None from a daemon of a version that chooses none."""
    owner: Annotated[bytes, Meta(max_length=MAX_OWNER_STATEMENT)] = b""
    """Statement that the daemon is the owner's; empty if it has always been."""


_decoder: Final = msgspec.msgpack.Decoder(ReplicaGrant)
encode_grant: Final = msgspec.msgpack.Encoder().encode


def decode_grant(payload: bytes) -> ReplicaGrant:
    """Return a grant, of which nothing is verified. Raises BadMessage."""
    try:
        return _decoder.decode(payload)
    except UNDECODABLE as error:
        raise BadMessage(reason=f"the grant of a replica: {error}") from None
