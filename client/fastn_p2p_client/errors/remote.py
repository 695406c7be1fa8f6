"""Errors of the peer, its daemon, or the path to it."""

from __future__ import annotations

from typing import Final

from .p2p_error import RemoteError

_SEE: Final = " See each step: fastn-p2p explain {peer}"

_WEB: Final = "Web"
"""Protocol that owners add with a command of its own."""
_NO_SERVICE: Final = "{peer} exposes no web service to you. Its owner exposes one: fastn-p2p expose PORT"
_NO_SERVICE_OF_NAME: Final = (
    "{peer} exposes no web service {instance!r} to you. Its owner exposes one of this name: "
    "fastn-p2p expose PORT --name {instance}"
)


class PeerUnknown(RemoteError):
    """No address is known for the peer."""

    code = "peer-unknown"
    retryable = True
    template = (
        "nothing is known about {peer}: the address book has no such name. An identity of this daemon has to be "
        "online. Ask for the peer's ID52 or ticket and add it: fastn-p2p peer add TICKET --name NAME"
    )
    see = _SEE
    peer: str

    def __str__(self) -> str:
        if len(self.peer) != 52:  # not an ID52
            return self._plain(self.template)
        from ..plain_text import plain

        asked = self.detail or "nor at the LAN and the directories, as far as the network mode uses them"
        return plain(
            f"nothing is known about {self.peer}: neither by the address book nor on this machine; {asked}. Is its "
            f"daemon running, and the identity online? Ask for its ticket."
        ) + self._plain(self.see)


class PeerUnreachable(RemoteError):
    """No connection to the peer's daemon could be made."""

    code = "peer-unreachable"
    retryable = True
    template = "{peer} cannot be reached: {reason}. Is its daemon running?"
    see = _SEE
    peer: str
    reason: str


class PeerOffline(RemoteError):
    """The peer's daemon answers, and the identity is not online there."""

    code = "peer-offline"
    retryable = True
    transient = True
    template = (
        "the daemon of {peer} answers, but the identity is not online there. Try again when it is. "
        "Its owner brings it online: fastn-p2p identity-online NAME"
    )
    peer: str


class ProtocolNotFound(RemoteError):
    """The peer does not offer the protocol to the caller."""

    code = "protocol-not-found"
    transient = True
    template = (
        "{peer} does not offer {protocol} to you. Its owner adds it: fastn-p2p add-protocol NAME --protocol {protocol}"
    )
    peer: str
    protocol: str

    def __str__(self) -> str:
        return self._plain(_NO_SERVICE if self.protocol == _WEB else self.template)


class InstanceNotFound(RemoteError):
    """The peer offers the protocol, but not this instance of it."""

    code = "instance-not-found"
    transient = True
    template = (
        "{peer} offers {protocol}, but has no instance {instance!r} of it for you. "
        "Its owner lists the instances: fastn-p2p status"
    )
    peer: str
    protocol: str
    instance: str

    def __str__(self) -> str:
        return self._plain(_NO_SERVICE_OF_NAME if self.protocol == _WEB else self.template)


class CommandNotFound(RemoteError):
    """The protocol does not have this command."""

    code = "command-not-found"
    template = "{protocol} at {peer} has no command {command!r}"
    peer: str
    protocol: str
    command: str


class Denied(RemoteError):
    """The binding's access list does not admit the caller."""

    code = "denied"
    template = (
        "{peer} does not let you use {protocol} ({instance}). "
        "Its owner sees that you were refused, and can let you in: fastn-p2p peer accept YOUR-ID52"
    )
    peer: str
    protocol: str
    instance: str


_INVITATION_REFUSED: Final = {
    "expired": "it has expired",
    "used-up": "it was used as often as it may be",
    "revoked": "its owner has revoked it",
    "unknown": "the peer's daemon knows no such invitation",
    "unsupported": "the peer's daemon is older than invitations, and has to be updated",
}


class InvitationRefused(RemoteError):
    """The peer's daemon does not let in the bearer of an invitation."""

    code = "invitation-refused"
    template = "the invitation of {peer} is of no use: {why}. Ask its owner for a new one: fastn-p2p invite"
    peer: str
    reason: str
    """``expired``, ``used-up``, ``revoked``, ``unknown``, or ``unsupported``: the peer's daemon is an older one."""

    def __str__(self) -> str:
        from ..plain_text import plain

        why = _INVITATION_REFUSED.get(self.reason, self.reason)
        return plain(self.template.format(peer=self.peer, why=why))


class OutcomeUnknown(RemoteError):
    """A daemon of the peer got a call with ``retry=True`` and does not answer any more. It may have been executed.

    Another daemon of the peer answers, or the same one was started again. It does not know what was executed before, so
    it does not execute the call.
    """

    code = "outcome-unknown"
    template = (
        "a daemon of {peer} got the call and has been silent or restarted since. It may have been executed, so it was "
        "not executed again. Find out whether it was executed, and call again if not"
    )
    peer: str


class HandlerFailed(RemoteError):
    """The handler raised an exception other than ``ApplicationError``, or its process ended before it began."""

    code = "handler-failed"
    transient = True
    template = "the handler of {protocol} at {peer} failed: {reason}"
    peer: str
    protocol: str
    reason: str
