"""Identities of a daemon."""

from __future__ import annotations

from collections.abc import Sequence

from ..control_client import ControlClient, list_all_identities
from ..errors import IdentityNotFound
from ..ipc import messages as m


class IdentityAdmin:
    """Identities of the daemon that a client is connected to: ``Client.identities``."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def create(self, name: str, *, listed: bool = True) -> m.IdentityInfo:
        """Create an identity and its key.

        Args:
            name: a lower-case letter, then lower-case letters, digits, ``-`` and ``_``; at most 64 characters.
            listed: publish its record to directories and the LAN while it is online.

        Raises:
            IdentityExists: there is one of this name.
            InvalidName: the name is not allowed.
        """
        return (await self._client.control(m.CreateIdentity(name, listed))).identity

    async def list(self) -> Sequence[m.IdentityInfo]:
        """Return all identities, sorted by name."""
        return await list_all_identities(self._client)

    async def get(self, name: str) -> m.IdentityInfo:
        """Return the identity ``name``.

        Raises:
            IdentityNotFound: there is none of this name.
        """
        for each in await self.list():
            if each.name == name:
                return each
        raise IdentityNotFound(identity=name)

    async def set_online(self, name: str, online: bool = True) -> m.IdentityInfo:
        """Bring the identity ``name`` online if ``online`` is set, else take it offline. It stays so over restarts.

        Raises:
            IdentityNotFound: there is none of this name.
            IdentityFailed: its process keeps crashing.
        """
        return (await self._client.control(m.SetIdentityOnline(name, online))).identity

    async def set_listed(self, name: str, listed: bool) -> m.IdentityInfo:
        """Publish the record of ``name`` to directories and the LAN if ``listed`` is set, else withdraw it.

        Raises:
            IdentityNotFound: there is none of this name.
        """
        return (await self._client.control(m.SetListed(name, listed))).identity

    async def set_idle(self, name: str, seconds: int) -> m.IdentityInfo:
        """Have ``name`` fall asleep after so many seconds without use: its process ends until it is called.

        Args:
            name: the identity.
            seconds: 0 keeps it awake.

        Raises:
            IdentityNotFound: there is none of this name.
        """
        return (await self._client.control(m.SetIdle(name, seconds))).identity

    async def set_limits(
        self,
        name: str,
        *,
        memory: int | None = None,
        processes: int | None = None,
        file_size: int | None = None,
        open_files: int | None = None,
    ) -> m.IdentityInfo:
        """Change the resource limits of the processes of ``name``, also while it is online.

        None keeps a limit, 0 removes it, and -1 restores the daemon's default.

        Args:
            memory: bytes of private memory of each process.
            processes: number of running processes that protocol code has started.
            file_size: bytes of a file that a process writes.
            open_files: number of open descriptors of each process.

        Raises:
            IdentityNotFound: there is none of this name.
        """
        message = m.SetLimits(name, memory, processes, file_size, open_files)
        return (await self._client.control(message)).identity

    async def ticket(self, name: str = "") -> m.TicketText:
        """Return a ticket of an identity that is online.

        Args:
            name: empty for the only one online.

        Returns:
            The text, with the time at which it expires: Unix time in seconds.

        Raises:
            IdentityOffline: it is not online.
        """
        return await self._client.control(m.GetTicket(name))

    async def revoke(self, name: str, successor: str = "") -> m.IdentityInfo:
        """Revoke the identity ``name`` for good: it goes offline, and every peer that learns of it refuses it.

        Args:
            successor: ID52, or name of an identity of this daemon, that takes its place; empty without one.

        Raises:
            IdentityNotFound: there is none of this name.
        """
        return (await self._client.control(m.RevokeIdentity(name, successor))).identity

    async def delete(self, name: str) -> None:
        """Delete the identity ``name`` with its key, its protocols and their files. Does not ask.

        Raises:
            IdentityNotFound: there is none of this name.
        """
        await self._client.control(m.DeleteIdentity(name))
