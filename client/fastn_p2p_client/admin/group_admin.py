"""Groups of peers."""

from __future__ import annotations

from collections.abc import Sequence

from ..control_client import ControlClient
from ..errors import P2PError
from ..ipc import messages as m


class GroupAdmin:
    """Groups of peers of the daemon that a client is connected to: ``Client.groups``.

    In access lists a group is ``group:NAME``. Members are named by petname or ID52.
    """

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def create(self, name: str, *members: str) -> None:
        """Create the group ``name`` with ``members``.

        Raises:
            GroupExists: there is one of this name.
            PeerNameUnknown: a member is not in the address book. The group is not created.
        """
        await self._client.control(m.CreateGroup(name))
        try:
            if members:
                await self.add(name, *members)
        except P2PError:
            await self.delete(name)
            raise

    async def list(self) -> Sequence[m.GroupInfo]:
        """Return the groups with their members."""
        return (await self._client.control(m.ListGroups())).groups

    async def add(self, name: str, *members: str) -> None:
        """Add ``members`` to the group ``name``, with effect at once.

        Raises:
            GroupNotFound: there is no group of this name.
        """
        await self._client.control(m.ChangeGroup(name, members))

    async def remove(self, name: str, *members: str) -> None:
        """Remove ``members`` from the group ``name``, with effect at once. Sessions end that nothing else admits.

        Raises:
            GroupNotFound: there is no group of this name.
        """
        await self._client.control(m.ChangeGroup(name, (), members))

    async def delete(self, name: str) -> None:
        """Delete the group ``name``. Its members stay in the address book.

        Raises:
            GroupNotFound: there is no group of this name.
        """
        await self._client.control(m.DeleteGroup(name))
