"""What the gateway says to an identity's process. One message, one answer; anything refused is an ``ErrorReply``."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from fastn_p2p_client.ipc.messages import (
    Ack,
    Cancel,
    ErrorReply,
    IdentityLimits,
    Message,
)

__all__ = [
    "Activate",
    "BindingState",
    "BindingStates",
    "Deactivate",
    "GetBindingStates",
    "IdentityAnswer",
    "IdentityRequest",
    "Limit",
]


class Activate(Message, frozen=True, tag=300):
    """Serve a protocol from now on. The payload is its config as JSON (empty: ``{}``); the workspace exists.

    Answered by ``Ack`` once the network hands requests over, or by an ``ErrorReply``, and then nothing is served. Of a
    binding that is served already, the config and the access list are replaced.
    """

    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    code: str = ""
    """Where the protocol's class is, as in its ``config.json``."""
    grant: bytes = b""
    """The identity's; without it the answer is ``forbidden``, since what changes a process comes from the gateway."""


class Deactivate(Message, frozen=True, tag=301):
    """Stop serving it; requests in flight get time to end. Answered by ``Ack``, also if it was not served."""

    protocol: str
    instance: str
    grant: bytes = b""
    """As in ``Activate``."""


class GetBindingStates(Message, frozen=True, tag=302):
    """Answered by ``BindingStates``."""


class Limit(Message, frozen=True, tag=303):
    """Use no more than this from now on. Answered by ``Ack``."""

    limits: IdentityLimits
    grant: bytes = b""
    """As in ``Activate``."""


class BindingState(msgspec.Struct, frozen=True, gc=False):
    protocol: str
    instance: str
    access: tuple[str, ...]
    state: str
    """``serving``, ``starting`` or ``failed: …``; a binding that was stopped is not listed."""


class BindingStates(Message, frozen=True, tag=350):
    bindings: list[BindingState]


IdentityRequest: TypeAlias = Activate | Deactivate | GetBindingStates | Limit | Cancel
"""Everything that may arrive at an identity's mailbox. ``Cancel`` has no answer and changes nothing."""

IdentityAnswer: TypeAlias = Ack | BindingStates | ErrorReply
"""Everything it answers."""
