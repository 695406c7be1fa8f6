"""Requests of the gateway to an identity's process. Each gets one reply; a refusal is an ``ErrorReply``."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from fastn_p2p_client.ipc.messages import Ack, Cancel, ErrorReply, IdentityLimits, Message


class Activate(Message, frozen=True, tag=300):
    """Serve a protocol instance. The payload is its config as JSON (empty: ``{}``). Its workspace exists.

    The reply is ``Ack`` once the network process sends requests for it, or ``RestartNeeded``. After an ``ErrorReply``
    it is not served. If the instance is served already, it gets the new config and access list.
    """

    protocol: str
    instance: str
    allow: tuple[str, ...] = ()
    code: str = ""
    """Entry point of the protocol, as in its ``config.json``."""
    grant: bytes = b""
    """Grant of the identity. Without it the reply is ``forbidden``, because only the gateway may change a process."""
    claims: str = ""
    """URL of the store in which its retried calls are claimed; empty for none."""


class Deactivate(Message, frozen=True, tag=301):
    """Stop serving an instance, after requests in flight had time to end. The reply is ``Ack``, even if it was not
    served."""

    protocol: str
    instance: str
    grant: bytes = b""
    """Grant of the identity, as in ``Activate``."""


class GetBindingStates(Message, frozen=True, tag=302):
    """List the states of all bindings. The reply is ``BindingStates``."""


class Limit(Message, frozen=True, tag=303):
    """Change the process's resource limits. The reply is ``Ack``."""

    limits: IdentityLimits
    grant: bytes = b""
    """Grant of the identity, as in ``Activate``."""


class SetIdleTime(Message, frozen=True, tag=304):
    """Fall asleep after so many seconds without use; 0 for never. The reply is ``Ack``."""

    seconds: int
    grant: bytes = b""
    """Grant of the identity, as in ``Activate``."""


class BindingState(msgspec.Struct, frozen=True, gc=False):
    protocol: str
    instance: str
    access: tuple[str, ...]
    state: str
    """``serving``, ``starting`` or ``failed: …``. A stopped binding is not listed."""


class BindingStates(Message, frozen=True, tag=350):
    bindings: list[BindingState]


class RestartNeeded(Message, frozen=True, tag=351):
    """The process's sandbox lacks what the binding needs. Restart the process, and send the request again."""


IdentityRequest: TypeAlias = Activate | Deactivate | GetBindingStates | Limit | SetIdleTime | Cancel
"""Every message to an identity's mailbox. ``Cancel`` has no reply and no effect."""

IdentityActorReply: TypeAlias = Ack | BindingStates | ErrorReply | RestartNeeded
"""Every reply of an identity's process."""
