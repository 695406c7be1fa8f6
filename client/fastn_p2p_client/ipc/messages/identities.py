"""Control messages about identities, their limits and tickets."""

from __future__ import annotations

from .base import Ack, Message, Record

__all__ = [
    "CreateIdentity",
    "DeleteIdentity",
    "GetTicket",
    "IdentityInfo",
    "IdentityLimits",
    "IdentityList",
    "IdentityReply",
    "ListIdentities",
    "RevokeIdentity",
    "SetIdentityOnline",
    "SetIdle",
    "SetLimits",
    "SetListed",
    "TicketText",
]


class IdentityLimits(Record, frozen=True):
    """Resource limits of one identity's processes. None stands for the daemon's default, and 0 for no limit."""

    memory: int | None = None
    """Bytes of private memory of each process."""
    processes: int | None = None
    """Number of running processes that protocol code has started."""
    file_size: int | None = None
    """Bytes of a file that a process writes."""
    open_files: int | None = None
    """Number of open descriptors of each process."""


class IdentityInfo(Record, frozen=True):
    """An identity as its owner has set it up."""

    name: str
    id52: str
    online: bool
    """True if the owner has brought it online. ``IdentityStatus`` has the actual state."""
    created: str
    """Time in UTC, ISO 8601."""
    limits: IdentityLimits = IdentityLimits()
    listed: bool = True
    """False if its record is not published to directories and the LAN."""
    revoked: str = ""
    """Time at which it was revoked, in UTC, ISO 8601; empty if it was not."""
    successor: str = ""
    """ID52 of the identity that takes its place; empty without one."""
    idle: int = 0
    """Seconds without use after which it falls asleep until it is called; 0 for never."""
    owner: str = ""
    """Name of the daemon that has its key, if this one is a replica; empty if the key is here."""


class IdentityReply(Message, frozen=True, tag=41):
    identity: IdentityInfo


class IdentityList(Message, frozen=True, tag=42):
    identities: list[IdentityInfo]
    more: bool = False
    """True if there are more identities after the last one."""


class TicketText(Message, frozen=True, tag=43):
    ticket: str
    expires: int = 0
    """Unix time in seconds; 0 when it is not known."""
    relays: tuple[str, ...] = ()
    """URLs of the relays in the ticket."""
    addresses: tuple[str, ...] = ()
    """Addresses in the ticket, ``ip:port``."""


class CreateIdentity(Message, frozen=True, tag=11):
    """Create an identity and its key."""

    reply_type = IdentityReply
    name: str
    listed: bool = True
    """False if its record must not be published to directories and the LAN."""


class DeleteIdentity(Message, frozen=True, tag=12):
    """Take the identity offline, then delete its key and its directory."""

    reply_type = Ack
    name: str


class ListIdentities(Message, frozen=True, tag=13):
    """List one page of the identities, sorted by name."""

    reply_type = IdentityList
    after: str = ""
    """Last name of the previous page; empty for the first page."""
    limit: int = 0
    """Maximum number of entries in the reply; 0 stands for the daemon's maximum (20,000)."""


class SetIdentityOnline(Message, frozen=True, tag=14):
    """Bring the identity online or take it offline. Online, the reply comes once its process serves."""

    reply_type = IdentityReply
    name: str
    online: bool


class SetLimits(Message, frozen=True, tag=36):
    """Change the resource limits of an identity's processes, also while it is online.

    The units are those of ``IdentityLimits``. None keeps the current limit, and -1 restores the daemon's default.
    """

    reply_type = IdentityReply
    identity: str
    memory: int | None = None
    processes: int | None = None
    file_size: int | None = None
    open_files: int | None = None


class SetListed(Message, frozen=True, tag=59):
    """Publish an identity's record to directories and the LAN from now on, or withdraw it from them."""

    reply_type = IdentityReply
    identity: str
    listed: bool


class SetIdle(Message, frozen=True, tag=34):
    """Have an identity fall asleep after a time without use: its process ends, and the next request starts it again."""

    reply_type = IdentityReply
    identity: str
    seconds: int
    """Time without use; 0 keeps the identity awake."""


class GetTicket(Message, frozen=True, tag=18):
    """Get a ticket of an identity, which must be online. An empty name stands for the only one online."""

    reply_type = TicketText
    identity: str


class RevokeIdentity(Message, frozen=True, tag=120):
    """Revoke an identity for good: it goes offline, and every peer that learns of it refuses it. Its key is kept.

    An interrupted request can be repeated.
    """

    reply_type = IdentityReply
    name: str
    successor: str = ""
    """ID52, or name of an identity of this daemon, that takes its place; empty without one."""
