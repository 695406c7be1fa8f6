"""Peer records in pkarr packets: one TXT record with the bytes of the signed record."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.errors import BadMessage

from .dns_packet import encode_txt_packet, read_txt_values
from .pkarr import SignedPacket, encode_key

_LABEL: Final = "_fastn-p2p"
"""Label of the TXT record, before the identity's key in z-base-32."""
_TTL: Final = 300
"""Seconds for which resolvers between the directory and the reader may keep the record."""


def encode_record_packet(identity: bytes, record: bytes) -> bytes:
    """Return the DNS message for the signed record of an identity (32 bytes). An empty one withdraws an earlier one."""
    return encode_txt_packet(_name(identity), record, ttl=_TTL)


def record_in(packet: SignedPacket) -> bytes:
    """Return the signed record in a packet, empty if the identity has withdrawn it. The caller must verify it.

    Raises:
        BadMessage: there is none, or more than one.
    """
    values = read_txt_values(packet.packet, _name(bytes(packet.key)))
    if len(values) != 1:
        raise BadMessage(reason=f"{len(values)} peer records in the packet of a directory, 1 is expected")
    return values[0]


def _name(identity: bytes) -> str:
    return f"{_LABEL}.{encode_key(identity)}"
