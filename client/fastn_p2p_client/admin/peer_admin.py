"""The address book of a daemon, strangers that were refused, and blocked peers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..control_client import ControlClient, list_all_peers
from ..errors import PeerNameUnknown
from ..ipc import messages as m


class PeerAdmin:
    """The address book of the daemon that a client is connected to: ``Client.peers``.

    A peer is named by its petname or ID52 where nothing else is said.
    """

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def add(self, peer: str, name: str, *, identity: str = "") -> m.PeerReply:
        """Add a peer to the address book. A peer that is in it is renamed.

        Args:
            peer: its ID52, or a ticket. An invitation is redeemed: the peer must be reachable.
            name: petname.
            identity: own identity that an invitation lets in; empty for the only one online.

        Returns:
            The peer, its former petname, and the bindings that an invitation has opened.

        Raises:
            InvalidKey, InvalidTicket: the text is no ID52 and no ticket, or the ticket has expired.
            PeerNameTaken: another peer has the petname.
            InvitationRefused: the peer does not take the invitation.
        """
        return await self._client.control(m.AddPeer(peer, name, identity=identity))

    async def list(self) -> Sequence[m.PeerInfo]:
        """Return the whole address book, sorted by name."""
        return await list_all_peers(self._client)

    async def get(self, peer: str) -> m.PeerInfo:
        """Return the entry of ``peer``.

        Raises:
            PeerNameUnknown: there is none.
        """
        for each in await self.list():
            if peer in (each.name, each.id52):
                return each
        raise PeerNameUnknown(name=peer)

    async def rename(self, peer: str, new: str) -> m.PeerInfo:
        """Give ``peer`` the petname ``new``. Access lists keep the old one.

        Raises:
            PeerNameTaken: another peer has the petname.
            PeerNameUnknown: there is no such peer.
        """
        known = await self.get(peer)
        return (await self.add(known.id52, new)).peer

    async def remove(self, name: str) -> None:
        """Remove a peer, by its petname ``name``, from the address book and from its groups.

        Raises:
            PeerNameUnknown: there is no such peer.
        """
        await self._client.control(m.RemovePeer(name))

    async def pending(self) -> Sequence[m.PendingPeer]:
        """Return strangers that were refused, the last refusal first."""
        return (await self._client.control(m.ListPendingPeers())).knocks

    async def accept(self, peer: str, name: str = "", *, allow: Iterable[str] = ()) -> m.PeerInfo:
        """Add a stranger that was refused, or any other identity, to the address book, and unblock it.

        Args:
            peer: its ID52, or the first 4 or more characters of one in ``pending``.
            name: petname; empty for one that is made of the ID52.
            allow: bindings whose access lists are to admit it: ``IDENTITY/PROTOCOL/INSTANCE``.
        """
        return (await self._client.control(m.AcceptPeer(peer, name, tuple(allow)))).peer

    async def accept_successor(self, peer: str) -> m.PeerReply:
        """Replace the key of the revoked ``peer`` by that of its successor."""
        return await self._client.control(m.AcceptSuccessor(peer))

    async def block(self, peer: str) -> None:
        """Refuse ``peer`` from now on, and end its calls, sessions and connections."""
        await self._client.control(m.BlockPeer(peer))

    async def unblock(self, peer: str) -> None:
        """Refuse ``peer`` no longer. Changes nothing if it is not blocked."""
        await self._client.control(m.UnblockPeer(peer))

    async def blocked(self) -> Sequence[m.BlockedInfo]:
        """Return the peers that are blocked."""
        return (await self._client.control(m.ListBlocked())).blocked
