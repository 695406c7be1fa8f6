"""Control messages about callers: strangers that were refused, blocked peers, groups, and access."""

from __future__ import annotations

from .base import Ack, Message, Record
from .peers import PeerReply

__all__ = [
    "AcceptPeer",
    "AccessEntry",
    "AccessReply",
    "BindingAccess",
    "BlockPeer",
    "BlockedInfo",
    "BlockedList",
    "ChangeGroup",
    "CreateGroup",
    "DeleteGroup",
    "GetAccess",
    "GroupInfo",
    "GroupList",
    "ListBlocked",
    "ListGroups",
    "ListPendingPeers",
    "PendingPeer",
    "PendingPeerList",
    "UnblockPeer",
    "WantedBinding",
]


class WantedBinding(Record, frozen=True):
    """A binding that a stranger was refused."""

    identity: str
    """Name of the local identity."""
    protocol: str
    """Empty if an invitation was refused."""
    instance: str
    count: int
    """Number of refusals."""


class PendingPeer(Record, frozen=True):
    """A stranger that an access list has refused, and that the owner has neither accepted nor blocked."""

    id52: str
    endpoint: str
    """Id of the endpoint through which it spoke first, 64 hex digits."""
    first_ms: int
    """Unix time in milliseconds of the first refusal."""
    last_ms: int
    count: int
    """Number of refusals."""
    wanted: list[WantedBinding]
    """The last one wanted first, at most 8."""


class BlockedInfo(Record, frozen=True):
    """An identity that the owner has blocked."""

    id52: str
    name: str
    """Petname of the identity, or the one from before it was blocked; empty if it had none."""
    since_ms: int
    """Unix time in milliseconds."""


class GroupInfo(Record, frozen=True):
    """A group of peers."""

    name: str
    members: list[str]
    """Petnames; ID52s of members that are not in the address book."""


class AccessEntry(Record, frozen=True):
    """An identity, or a set of them, that a binding admits."""

    who: str
    """``everyone``, ``peers``, a petname, or an ID52."""
    why: str
    """Entry of the access list that admits it: ``everyone``, ``peers``, ``group:NAME``, a petname, or an ID52;
    ``invitation:ID`` if an invitation does. Empty if nothing does."""
    id52: str = ""
    """Empty for ``everyone`` and ``peers``."""
    count: int = 1
    """Number of identities; 0 stands for any number."""
    problem: str = ""
    """Reason why the entry admits nobody, or why the identity is not admitted; empty if it is admitted."""


class BindingAccess(Record, frozen=True):
    """Identities that may use a binding."""

    identity: str
    protocol: str
    instance: str
    allow: list[str]
    """Access list that is in effect; empty if the protocol decides and is not loaded."""
    admits: list[AccessEntry]
    """Entry for each identity. With ``GetAccess.peer``, the only entry is about that peer."""
    permissions: tuple[str, ...] = ()
    """Files and sockets outside of its workspace that its code may use, as lines of ``Permissions``."""


class PendingPeerList(Message, frozen=True, tag=86):
    """Strangers that were refused, the last refusal first."""

    revision: int
    """Changes with each new and each removed entry."""
    knocks: list[PendingPeer]


class GroupList(Message, frozen=True, tag=87):
    groups: list[GroupInfo]


class AccessReply(Message, frozen=True, tag=88):
    bindings: list[BindingAccess]


class BlockedList(Message, frozen=True, tag=89):
    blocked: list[BlockedInfo]


class ListPendingPeers(Message, frozen=True, tag=90):
    """List strangers that were refused. With ``wait_ms``, a long poll for a change."""

    reply_type = PendingPeerList
    seen: int = -1
    """``revision`` of the previous reply. The reply waits while it is the present one."""
    wait_ms: int = 0
    """Milliseconds that the reply may wait for a change, at most 30,000."""


class AcceptPeer(Message, frozen=True, tag=91):
    """Add a stranger that was refused, or any other identity, to the address book, and unblock it."""

    reply_type = PeerReply
    peer: str
    """An ID52, or the first characters of one in ``ListPendingPeers``; at least 4."""
    name: str = ""
    """Petname; empty for ``peer-`` and the first characters of the ID52."""
    allow: tuple[str, ...] = ()
    """Bindings whose access lists are to admit the peer: ``IDENTITY/PROTOCOL/INSTANCE``."""


class BlockPeer(Message, frozen=True, tag=92):
    """Refuse an identity from now on, and end its calls, sessions and connections."""

    reply_type = Ack
    peer: str
    """A petname, an ID52, or the first characters of one in ``ListPendingPeers``."""


class UnblockPeer(Message, frozen=True, tag=93):
    """Refuse an identity no longer. Changes nothing if it is not blocked."""

    reply_type = Ack
    peer: str
    """A petname or an ID52."""


class ListBlocked(Message, frozen=True, tag=94):
    """List the identities that are blocked."""

    reply_type = BlockedList


class CreateGroup(Message, frozen=True, tag=95):
    """Create a group of peers without members. In access lists its name is ``group:NAME``."""

    reply_type = Ack
    name: str


class DeleteGroup(Message, frozen=True, tag=96):
    """Delete a group of peers. Its members stay in the address book; access lists that name it admit nobody by it."""

    reply_type = Ack
    name: str


class ChangeGroup(Message, frozen=True, tag=97):
    """Add members to a group and remove members from it, with effect at once. Members are petnames or ID52s."""

    reply_type = Ack
    name: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class ListGroups(Message, frozen=True, tag=98):
    """List the groups of peers."""

    reply_type = GroupList


class GetAccess(Message, frozen=True, tag=99):
    """Get the identities that may use each binding, and the reasons."""

    reply_type = AccessReply
    identity: str = ""
    """Name of the only identity whose bindings are listed; empty for all."""
    peer: str = ""
    """The only caller of interest: a petname or an ID52; empty for all that are admitted."""
