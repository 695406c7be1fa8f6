"""Transports of the local protocol, behind one interface.

Both speak ZMTP 3.1 as a DEALER to a mailbox, so the other end cannot tell them apart:

- ``native``: on the event loop, without a thread. The default.
- ``pyzmq``: libzmq, with an I/O thread. The vault's mailbox needs it for CURVE; programs may choose it.

Measured with whole calls through two daemons on two cores: with ``pyzmq`` everywhere, a call takes 1.44 times as long.
"""

from __future__ import annotations

import os
from typing import Final, Literal, Protocol, TypeAlias, get_args

from ...errors import InvalidName
from .native.codec import Payload

TransportName: TypeAlias = Literal["native", "pyzmq"]
TRANSPORTS: Final[tuple[TransportName, ...]] = get_args(TransportName)
_VARIABLE: Final = "FASTN_TRANSPORT"


class Transport(Protocol):
    """A connection to one mailbox, made again whenever it ends. Made with a function that returns the socket's path at
    each connection, and with callbacks: ``on_message``, ``on_connect``, ``on_disconnect``, ``on_refused``."""

    def open(self) -> None:
        """Begin to connect, inside a running event loop."""

    def close(self) -> None:
        """Call nothing any more. Messages that were sent still leave if they can leave at once."""

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """Send one message; False when too much waits already and the message is not ``credited``."""
        ...

    def gather(self) -> None:
        """Send everything of this turn of the event loop together, once the turn is over."""

    async def flushed(self) -> None:
        """Return when everything that was sent has left this process. Raises ConnectionLost."""


def choose_transport(name: str | None = None) -> TransportName:
    """Return the transport that a program wants: ``name``, else ``$FASTN_TRANSPORT``, else ``"native"``.

    Raises:
        InvalidName: there is no such transport.
    """
    wanted = name or os.environ.get(_VARIABLE) or TRANSPORTS[0]
    if wanted not in TRANSPORTS:
        raise InvalidName(name=wanted, what="a transport", reason=f"choose one of {', '.join(TRANSPORTS)}")
    return wanted
