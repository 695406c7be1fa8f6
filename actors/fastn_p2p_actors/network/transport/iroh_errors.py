"""Meaning of iroh's errors. The binding has them as text only, and this is the one place that reads it.

The words are those of iroh 1.2.0. A test provokes each of them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from iroh.iroh_ffi import IrohError

from fastn_p2p_client.errors import ConnectionLost, PeerUnreachable

_CODE_LOCATION: Final = re.compile(r" \(\S+:\d+:\d+\)$")
"""End of a line of an error: file, line and column."""
_REFUSED: Final = "the server refused to accept a new connection"
"""QUIC's CONNECTION_REFUSED (RFC 9000, section 20.1)."""
_UNSUPPORTED: Final = "support any known protocol"
"""TLS alert 120 (RFC 7301)."""
_CLOSED_BY_PEER: Final = (
    re.compile(r'ApplicationClose \{ error_code: \d+, reason: b"(.*)" \}'),  # from a stream
    re.compile(r"^closed by peer: (.*) \(code \d+\)$", re.DOTALL),  # from the connection, with a reason
    re.compile(r"^closed by peer: ()\d+$"),  # and without
)
_STREAM_CODE: Final = re.compile(r"^(Reset|Stopped)\((\d+)\)")


class RefusedByPeer(PeerUnreachable):
    """The peer daemon has refused the handshake, or closed the connection before its hello.

    Inside the network process only: programs get ``PeerUnreachable``.
    """


class ClosedByPeer(ConnectionLost):
    """The peer daemon has closed the connection. Inside the network process only: programs get ``ConnectionLost``."""


class ConnectionEnd(NamedTuple):
    """End of a connection.

    Attributes:
        reason: for people.
        by_peer: True if the peer daemon has closed it.
    """

    reason: str
    by_peer: bool = False

    def error(self) -> ConnectionLost:
        """Return the error of those who wait for the connection."""
        kind = ClosedByPeer if self.by_peer else ConnectionLost
        return kind(what=f"the connection ({self.reason})")


def connection_end(error: IrohError | str) -> ConnectionEnd:
    """Return the end of a connection, from an error of one of its streams or from what ``Connection.closed`` returns.

    The peer daemon chooses a part of the reason.
    """
    text = error.message() if isinstance(error, IrohError) else error
    closed = next(filter(None, (each.search(text) for each in _CLOSED_BY_PEER)), None)
    if closed is None:
        return ConnectionEnd(text)
    reason = "the peer daemon closed it"
    return ConnectionEnd(f"{reason}: {closed[1]}" if closed[1] else reason, by_peer=True)


def dial_error(endpoint: bytes, error: IrohError) -> PeerUnreachable:
    """Return the error of a dial, without the lines of Rust code through which it came."""
    *_, cause = ("the handshake failed", *filter(None, map(str.strip, error.message().splitlines())))
    reason = _CODE_LOCATION.sub("", cause)[:200]
    kind = RefusedByPeer if _REFUSED in reason else PeerUnreachable
    return kind(peer=endpoint.hex()[:10], reason=reason)


def is_unsupported_protocol(error: IrohError) -> bool:
    """Return whether the peer daemon has answered a handshake, but does not speak its protocol."""
    return _UNSUPPORTED in error.message()


def stream_code(error: IrohError) -> int | None:
    """Return the code with which the peer has ended a stream, or None if the error has another cause."""
    found = _STREAM_CODE.match(error.message())
    return int(found[2]) if found else None
