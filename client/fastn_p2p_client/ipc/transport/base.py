"""``Transport``: the interface of the transports of the local protocol, and the choice of one.

Both transports speak ZMTP 3.1 as a DEALER to a mailbox, so the mailbox cannot tell them apart:

- ``native``: on the event loop, without a thread. The default.
- ``pyzmq``: libzmq, with an I/O thread. Programs may choose it.

Measured with calls through two daemons on two cores: if all processes use ``pyzmq``, a call takes 1.44 times as long.
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
    """A connection to one mailbox that is made again when it ends.

    Its constructor takes a function that returns the socket's path before each attempt, and the callbacks
    ``on_message``, ``on_connect``, ``on_disconnect`` and ``on_refused``.
    """

    def open(self) -> None:
        """Start to connect, in the running event loop."""

    def close(self) -> None:
        """Close, and make no callback any more. Messages that were sent leave if the kernel takes them now."""

    def send(self, correlation: bytes, header: bytes, payload: Payload, credited: bool) -> bool:
        """Send one message. Return False if the queue is full and the message is not ``credited``."""
        ...

    def cork(self) -> None:
        """Send everything of this loop iteration together at its end."""

    async def drain(self) -> None:
        """Wait until everything that was sent has left this process. Raises ConnectionLost."""


def choose_transport(name: str | None = None) -> TransportName:
    """Return the name of the transport: ``name``, else ``$FASTN_TRANSPORT``, else ``"native"``.

    Raises:
        InvalidName: there is no transport of this name.
    """
    chosen = name or os.environ.get(_VARIABLE) or TRANSPORTS[0]
    if chosen not in TRANSPORTS:
        raise InvalidName(name=chosen, what="a transport", reason=f"choose one of {', '.join(TRANSPORTS)}")
    return chosen
