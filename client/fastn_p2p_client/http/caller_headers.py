"""Headers that tell a service who calls. Whatever a caller sends under these names is removed.

A service may read a header under another spelling: CGI and WSGI turn ``Fastn-Peer`` and ``fastn_peer`` into the same
variable. So names are compared by their letters and digits alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ..peer import Peer
from .request_reader import RequestHead, with_connection_options

PEER: Final = b"Fastn-Peer"
PEER_NAME: Final = b"Fastn-Peer-Name"
REQUEST_ID: Final = b"Fastn-Request-Id"
"""Name of the request: the request id of its session, ``/``, the number of its connection in a session that carries
several and another ``/``, and its own number in the connection. The numbers are hexadecimal. It differs for each
request, and so is no part of ``with_caller``."""
_SEPARATORS: Final = re.compile(rb"[^a-z0-9]+")
_RESERVED: Final = re.compile(rb"fastnpeer.*|fastnrequest.*|xforwarded.*|forwarded|xrealip|proxy")
_MAX_CACHED: Final = 64
"""Bytes of a name whose result is kept."""
_OF_FRAMING: Final = frozenset({b"transfer-encoding", b"content-length", b"host", b"trailer"})


def is_reserved(name: bytes) -> bool:
    """Return whether only this side may say what a header of this name says."""
    return _is_reserved(name) if len(name) <= _MAX_CACHED else _matches(name)


def _matches(name: bytes) -> bool:
    return _RESERVED.fullmatch(_SEPARATORS.sub(b"", name.lower())) is not None


_is_reserved: Final = lru_cache(256)(_matches)


def caller_headers(peer: Peer) -> list[tuple[bytes, bytes]]:
    """Return ``Fastn-Peer``, the ID52, and ``Fastn-Peer-Name``, the petname if there is one."""
    named = [(PEER_NAME, peer.name.encode())] if peer.name else []
    return [(PEER, peer.key.id52.encode()), *named]


def address_of(peer: Peer) -> bytes:
    """Return the IP address of the peer's daemon; ``unknown``, the word of RFC 7239, if there is none.

    A service that trusts its own machine must not take a peer for a part of it, so loopback addresses are unknown too.
    """
    address = peer.address.rpartition(":")[0].strip("[]") if peer.path == "direct" else ""
    is_loopback = address.startswith(("127.", "::1", "::ffff:127."))
    return b"unknown" if is_loopback or not address else address.encode()


def with_caller(head: RequestHead, peer: Peer, *, host: str = "") -> RequestHead:
    """Return the head as the service gets it: without reserved headers, and with those that name the caller.

    Args:
        host: value of Host for the service; by default that of the caller.
    """
    known = head.value(b"host") or b""
    headers = [(name, value) for name, value in head.headers if not is_reserved(name)]
    if host:
        headers = [(b"Host", host.encode()), *((name, value) for name, value in headers if name.lower() != b"host")]
    headers = with_connection_options(headers)
    headers += caller_headers(peer)
    headers += [(b"X-Forwarded-For", address_of(peer)), (b"X-Forwarded-Proto", b"http")]
    if known:
        headers.append((b"X-Forwarded-Host", known))
    return head._replace(headers=headers)


def safe_trailers(trailers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return trailers without those that belong into a head, and those that only this side may send."""
    return [(name, value) for name, value in trailers if not is_reserved(name) and name.lower() not in _OF_FRAMING]
