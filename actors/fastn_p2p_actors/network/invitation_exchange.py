"""Invitation exchange: makes invitations, lets in the bearers that redeem them, and redeems those of other daemons.

The bearer's daemon sends the secret only over a connection over which the inviter's identity is proved. The inviter's
daemon compares it with what it has made, and knows the bearer by the identity that is proved over the connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    CredentialError,
    DeadlineExceeded,
    InvalidName,
    InvitationRefused,
    P2PError,
    PeerNameTaken,
    PeerOffline,
    PeerUnreachable,
)
from fastn_p2p_client.ipc.messages import InvitationList, InvitationText, PeerReply
from fastn_p2p_client.keys import PublicKey, id52_of
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from ..credentials import peek_record
from ..credentials.invitation import SECRET_BYTES, Invitation, read_invitation
from ..storage.invitation_file import SavedInvitation
from ..vault.audit_reporter import AuditReporter
from ..vault.messages import SignInvitation
from .address_book import AddressBook, AddressBookEntry
from .admin_messages import EndInvitation, MakeInvitation, SavePeer
from .connections.connection import PeerConnection
from .contacts.invitation_store import Redeemed
from .discovery.identity_publisher import IdentityPublisher
from .discovery.router import PeerRouter
from .serving.access_list import EVERYONE, PEERS
from .serving.registry import OnlineIdentity, Registry
from .sessions.revocation import SessionRevocation
from .vault_client import VaultClient
from .wire import messages as wire

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 15.0
"""Time to reach the inviter's daemon."""
ANSWER_SECONDS: Final = 10.0
"""Time for its answer."""
_MOST_NAMESAKES: Final = 1000
"""Numbers that are tried behind a petname that is taken."""
_SHOWN: Final = 6
"""Characters of the ID52 in the petname of a bearer that has proposed no usable one."""


class InvitationExchange:
    """Makes and redeems invitations. Create it inside the running event loop.

    Args:
        on_denied: called with the own identity and the key of a stranger whose invitation was refused.
        on_added: called with a peer that was added to the address book.
        wall: returns Unix time.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        book: AddressBook,
        router: PeerRouter,
        publisher: IdentityPublisher,
        vault: VaultClient,
        sessions: SessionRevocation,
        audit: AuditReporter,
        on_denied: Callable[[OnlineIdentity, bytes], object],
        on_added: Callable[[AddressBookEntry], object],
        wall: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._book = book
        self._known = book.invitations
        self._router = router
        self._publisher = publisher
        self._vault = vault
        self._sessions = sessions
        self._audit = audit
        self._on_denied = on_denied
        self._on_added = on_added
        self._wall = wall

    # ── inviting ─────────────────────────────────────────────────────────────────────────────────

    async def make(self, message: MakeInvitation) -> InvitationText:
        """Make an invitation, and keep it on disk before its text is returned.

        Raises:
            IdentityOffline, IdentityAmbiguous, NoIdentityOnline: the identity cannot invite now.
            PeerNameTaken, InvalidName: the bearer cannot have this petname.
            VaultLocked, Overloaded, StorageFailed: it cannot be made now.
        """
        identity = self._registry.calling_identity(message.identity)
        if message.name and self._book.by_name(check_name(message.name, "a peer")) is not None:
            raise PeerNameTaken(name=message.name)
        if message.name in (*message.reserved, EVERYONE, PEERS):
            reason = "an identity of this daemon has it, or access lists use it"
            raise InvalidName(name=message.name, what="a peer", reason=reason)
        record = await self._publisher.fresh_record(identity)
        expires = int(self._wall()) + message.seconds
        secret = os.urandom(SECRET_BYTES)
        signed = await self._vault.invitation(
            SignInvitation(identity.name, expires, message.uses, message.bindings, record, secret)
        )
        invitation = self._known.create(
            identity.raw,
            identity.name,
            secret,
            bindings=message.bindings,
            uses=message.uses,
            expires=expires,
            petname=message.name,
            reserved=message.reserved,
        )
        own = peek_record(record).endpoints[0]
        return InvitationText(invitation, str(Ticket.of_record(signed.blob)), own.relays, own.addresses)

    def infos(self, identity: str = "") -> InvitationList:
        """Return the invitations of an identity, or of all."""
        return InvitationList(self._known.infos(identity, self._book.name_of))

    async def end(self, message: EndInvitation) -> InvitationList:
        """Let in no more bearers of an invitation. Raises InvitationNotFound or StorageFailed."""
        id = self._known.revoke(message.id, access=message.access)
        if message.access:
            await self._sessions.access_changed()
        return InvitationList([self._known.info(id, self._book.name_of)])

    async def restore(self, invitation: SavedInvitation) -> None:
        """Restore what an invitation of a backup has permitted. Raises Overloaded or StorageFailed."""
        self._known.restore(invitation)
        await self._sessions.access_changed()

    async def remove_binding(self, identity: str, protocol: str, instance: str) -> None:
        """A binding, or a whole identity, was removed: no invitation opens it any more. Raises StorageFailed."""
        self._known.remove_binding(identity, protocol, instance)
        await self._sessions.access_changed()

    def on_redeem(self, connection: PeerConnection, message: wire.RedeemInvitation) -> None:
        """A peer daemon redeems an invitation. Its source has been proved."""
        requests = connection.requests
        identity = self._registry.by_key(message.target)
        try:
            if identity is None:
                raise PeerOffline(peer=PublicKey(message.target).id52)
            if len(message.secret) != SECRET_BYTES or len(message.name) > MAX_NAME:
                raise BadMessage(reason=f"an invitation has a secret of {SECRET_BYTES} bytes, and a name")
            redeemed = self._known.redeem(message.target, message.secret, message.source)
            peer = self._add_bearer(message, redeemed)
        except InvitationRefused as error:
            if identity is not None:
                self._on_denied(identity, message.source)
            requests.refuse(message.id, error)
            return
        except P2PError as error:
            requests.refuse(message.id, error)
            return
        requests.answer(wire.Reply(message.id))
        if redeemed.is_new:
            log.info("%s was let in by invitation %s", peer.name, redeemed.id)
            self._audit.record(
                "invitation-used",
                invitation=redeemed.id,
                identity=redeemed.identity,
                peer=peer.key.id52,
                name=peer.name,
                bindings=list(redeemed.bindings),
                uses_left=redeemed.uses_left,
            )

    def _add_bearer(self, message: wire.RedeemInvitation, redeemed: Redeemed) -> AddressBookEntry:
        """Return the bearer's entry in the address book. Add it if there is none. Raises StorageFailed."""
        entry = self._book.by_key(message.source)
        if entry is not None:
            return entry
        id52 = id52_of(message.source)
        name = self._petname(redeemed.name or message.name, redeemed.reserved, id52)
        text = id52
        try:
            ticket = Ticket.of_record(message.record) if message.record else None
            if ticket is not None and ticket.identity.id52 == id52 and not ticket.is_invitation:
                text = str(ticket)
        except P2PError as error:
            log.debug("the record of %s is of no use: %s", name, error)
        try:
            entry = self._book.add(text, name, invited=True)
        except (CredentialError, BadMessage) as error:  # of its record: the key is enough to know it
            log.debug("the record of %s is of no use: %s", name, error)
            entry = self._book.add(id52, name, invited=True)
        self._on_added(entry)
        return entry

    def _petname(self, proposed: str, reserved: tuple[str, ...], id52: str) -> str:
        """Return a free petname: the proposed one if it can be had, or else that with a number.

        A bearer must not get the calls that are meant for an identity of this daemon, so it never gets such a name.
        """
        try:
            base = check_name(proposed, "a peer")
        except InvalidName:
            base = f"peer-{id52[:_SHOWN]}"
        for number in range(1, _MOST_NAMESAKES):
            name = base if number == 1 else f"{base[: MAX_NAME - 4]}-{number}"
            used = name in reserved or name in (EVERYONE, PEERS) or self._registry.by_name(name) is not None
            if not used and self._book.by_name(name) is None:
                return name
        return f"peer-{id52[: MAX_NAME - 12]}"

    # ── redeeming ────────────────────────────────────────────────────────────────────────────────

    async def redeem(self, message: SavePeer, ticket: Ticket) -> PeerReply:
        """Redeem an invitation, and add the inviter to the address book. Until it is redeemed, nothing is changed.

        Raises:
            BadSignature, BadMessage: the ticket was changed.
            InvitationRefused: the inviter's daemon, or the date in the ticket, refuses it.
            PeerNameTaken, InvalidName, PeerBlocked: the inviter cannot be added under this petname.
            PeerUnreachable, PeerOffline, PeerUnknown, ConnectionLost, DeadlineExceeded: its daemon cannot be reached.
                The same request can be sent again.
        """
        invitation = read_invitation(ticket.record_bytes)
        inviter = invitation.identity
        source = self._registry.calling_identity(message.identity)
        own = self._registry.by_key(inviter)
        if own is not None:
            raise InvalidName(name=message.name, what="a peer", reason=f"{own.name} of this daemon invites")
        self._book.check_new(inviter, message.name)
        invitation.check_expiry(self._wall())
        await self._request_redemption(invitation, source)
        peer = self._add_inviter(invitation, message.name)
        self._on_added(peer)
        reply = PeerReply(peer.info(), peer.renamed_from, invitation.bindings)
        await self._sessions.access_changed()
        return reply

    async def _request_redemption(self, invitation: Invitation, source: OnlineIdentity) -> None:
        """Ask the inviter's daemon to let ``source`` in. Return once it has done so."""
        inviter = invitation.identity
        id52 = id52_of(inviter)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._router.connect(inviter, str(Ticket.of_record(invitation.record)))
        except TimeoutError:
            raise PeerUnreachable(peer=id52, reason=f"no connection within {CONNECT_SECONDS:g} s") from None
        if not connection.supports_invitations:
            raise InvitationRefused(peer=id52, reason="unsupported")
        answer = _RedemptionCall(inviter)
        number = connection.requests.redeem(answer, source.raw, inviter, invitation.secret, source.name, source.record)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                error = await answer.outcome
        except TimeoutError:
            raise DeadlineExceeded(seconds=ANSWER_SECONDS) from None
        finally:
            connection.requests.cancel(number)
        if isinstance(error, InvitationRefused):
            raise InvitationRefused(peer=id52, reason=error.reason)
        if isinstance(error, ConnectionLost):
            raise PeerUnreachable(peer=id52, reason="the connection ended before the answer came. Try again")
        if error is not None:
            raise error

    def _add_inviter(self, invitation: Invitation, name: str) -> AddressBookEntry:
        """Add the inviter. An invitation is good for longer than the record in it, whose addresses may still hold."""
        try:
            return self._book.add(str(Ticket.of_record(invitation.record)), name)
        except CredentialError:
            peer = self._book.add(id52_of(invitation.identity), name)
            self._book.note_record(invitation.identity, invitation.record)
            return peer


class _RedemptionCall:
    """``OutgoingCall`` whose outcome is None, or the error with which the inviter's daemon has answered."""

    may_repeat = False

    def __init__(self, target: bytes) -> None:
        self.target = target
        self.outcome: asyncio.Future[P2PError | None] = asyncio.get_running_loop().create_future()

    def on_reply(self, payload: bytes) -> None:
        self._end(None)

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        self._end(BadMessage(reason="an application error in reply to an invitation"))

    def on_error(self, error: P2PError) -> None:
        self._end(error)

    def _end(self, outcome: P2PError | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
