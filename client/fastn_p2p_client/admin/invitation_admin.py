"""Invitations of a daemon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ..control_client import ControlClient
from ..ipc import messages as m

WEEK: Final = 7 * 24 * 3600
"""Seconds of a week."""


class InvitationAdmin:
    """Invitations of the daemon that a client is connected to: ``Client.invitations``."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def create(
        self, bindings: Iterable[str], *, identity: str = "", uses: int = 1, seconds: int = WEEK, name: str = ""
    ) -> m.InvitationText:
        """Make an invitation: a ticket that lets its bearers use some bindings, and no others.

        Args:
            bindings: ``PROTOCOL``, for its default instance, or ``PROTOCOL/INSTANCE``; 1 to 16.
            identity: the identity that invites; empty for the only one online.
            uses: number of bearers, at most 1,000.
            seconds: time for which it can be redeemed, at most a year.
            name: petname of its only bearer; empty for the one that the bearer's owner chose.
        """
        return await self._client.control(m.CreateInvitation(identity, tuple(bindings), uses, seconds, name))

    async def list(self, identity: str = "") -> Sequence[m.InvitationInfo]:
        """Return the invitations, the newest first.

        Args:
            identity: the only identity of interest; empty for all.
        """
        return (await self._client.control(m.ListInvitations(identity))).invitations

    async def revoke(self, id: str, *, access: bool = False) -> m.InvitationInfo:
        """Let in no more bearers of an invitation. May be repeated.

        Args:
            id: its id, or the first 4 or more characters of it.
            access: also take the permission back from those who were let in, and end their sessions.

        Raises:
            InvitationNotFound: there is none of this id.
        """
        (revoked,) = (await self._client.control(m.RevokeInvitation(id, access))).invitations
        return revoked
