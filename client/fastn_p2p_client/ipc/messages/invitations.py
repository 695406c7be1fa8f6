"""Control messages about invitations."""

from __future__ import annotations

from .base import Message, Record

__all__ = [
    "CreateInvitation",
    "InvitationInfo",
    "InvitationList",
    "InvitationText",
    "InvitedPeer",
    "ListInvitations",
    "RevokeInvitation",
]


class InvitedPeer(Record, frozen=True):
    """A bearer of an invitation, which was let in."""

    name: str
    """Petname; empty if it is not in the address book any more."""
    id52: str
    at_ms: int
    """Unix time in milliseconds at which it was let in."""
    removed: bool = False
    """True if the owner has taken its permission back."""


class InvitationInfo(Record, frozen=True):
    """An invitation that this daemon has made."""

    id: str
    identity: str
    """Name of the identity that invites."""
    bindings: list[str]
    """Bindings that it opens: ``PROTOCOL/INSTANCE``."""
    state: str
    """``open``, ``used-up``, ``expired`` or ``revoked``."""
    uses: int
    """Number of bearers that it may let in."""
    bearers: list[InvitedPeer]
    """Bearers that it has let in, also if their permission was taken back."""
    created_ms: int
    """Unix time in milliseconds."""
    expires_ms: int
    name: str = ""
    """Petname that its bearer gets; empty if the bearer's owner chooses it."""


class InvitationText(Message, frozen=True, tag=78):
    """A new invitation."""

    invitation: InvitationInfo
    ticket: str
    """Text for the bearer. It has the secret, which the daemon does not keep."""
    relays: tuple[str, ...] = ()
    """URLs of the relays in it."""
    addresses: tuple[str, ...] = ()
    """Addresses in it, ``ip:port``."""

    def __repr__(self) -> str:
        return f"InvitationText({self.invitation!r})"


class InvitationList(Message, frozen=True, tag=79):
    """Invitations, the newest first."""

    invitations: list[InvitationInfo]


class CreateInvitation(Message, frozen=True, tag=75):
    """Make an invitation of an online identity: a ticket that lets its bearers use some bindings, and no others."""

    reply_type = InvitationText
    identity: str
    """Empty for the only one online."""
    bindings: tuple[str, ...]
    """``PROTOCOL``, for its default instance, or ``PROTOCOL/INSTANCE``; 1 to 16."""
    uses: int = 1
    """Number of bearers, at most 1,000."""
    seconds: int = 7 * 24 * 3600
    """Time for which it can be redeemed, at most a year. The permission of a bearer does not end then."""
    name: str = ""
    """Petname of its only bearer; empty for the name that the bearer's owner gave it, or a similar one."""


class ListInvitations(Message, frozen=True, tag=76):
    """List the invitations of this daemon. Unused ones are removed a month after their end."""

    reply_type = InvitationList
    identity: str = ""
    """Name of the only identity whose invitations are listed; empty for all."""


class RevokeInvitation(Message, frozen=True, tag=77):
    """Let in no more bearers of an invitation. May be repeated."""

    reply_type = InvitationList
    id: str
    """Id of the invitation, or the first characters of it, at least 4."""
    access: bool = False
    """Also take the permission back from those who were let in, and end their sessions."""
