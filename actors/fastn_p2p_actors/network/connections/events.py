"""Callbacks of a connection: what it reports to its owner, the network process, and to the calls that wait for it.

The classes are generic in the class of the connection, so that this module does not import it.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from fastn_p2p_client.errors import P2PError

from ...credentials import Delegation
from ..wire import messages as wire
from .session_handshake import IncomingSession

ConnectionT = TypeVar("ConnectionT", contravariant=True)


class IdentityBlocked(Exception):
    """The owner has blocked the identity that introduces itself. It gets no answer, and no line in the log.

    Attributes:
        identity: its key.
    """

    def __init__(self, identity: bytes) -> None:
        super().__init__()
        self.identity = identity


class OutgoingCall(Protocol):
    """A call of a local program that waits for its reply from the peer. One of the methods is called, once.

    Attributes:
        may_repeat: true if its program calls again, under the same id, when the connection ends.
        target: key of the callee.
    """

    may_repeat: bool
    target: bytes

    def on_reply(self, payload: bytes) -> None:
        """Receive the reply of the callee."""
        ...

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        """Receive the application error that the callee's handler raised."""
        ...

    def on_error(self, error: P2PError) -> None:
        """Receive the error of the peer daemon, or the end of the connection."""
        ...


class IdentityEvents(Protocol[ConnectionT]):
    """Callbacks of the identity exchange. None of them may block."""

    def check_introduction(self, connection: ConnectionT, delegation: bytes) -> Delegation:
        """Verify a delegation that the peer daemon has sent, and return it.

        Raises:
            CredentialError: it does not hold for this endpoint at this time.
            BadMessage: it cannot be decoded.
            IdentityBlocked: the owner has blocked the identity.
        """
        ...

    def introduction_for(self, identity: bytes) -> bytes | None:
        """Return the signed delegation of a local identity, or None if it is not online."""
        ...

    def record_of(self, identity: bytes) -> bytes:
        """Return the newest record of a local identity; empty if it is not online."""
        ...

    def awaits_identities(self) -> bool:
        """Return whether local identities may be about to come online, because a process of theirs has just started."""
        ...

    def revocation_of(self, identity: bytes) -> bytes:
        """Return the signed revocation of an identity; empty if it is not known to be revoked."""
        ...

    def on_introduced(self, connection: ConnectionT, identity: bytes) -> None:
        """The peer daemon has proved that the identity is online there. Called for every proof, also a repeated one."""
        ...


class ConnectionEvents(IdentityEvents[ConnectionT], Protocol[ConnectionT]):
    """Callbacks of a connection for its owner. None of them may raise or block, except ``check_introduction``."""

    def is_known(self, connection: ConnectionT) -> bool:
        """Return whether an identity in the address book speaks over the connection."""
        ...

    def on_hello(self, connection: ConnectionT) -> None:
        """The hello of the peer daemon has arrived: the connection is ready."""
        ...

    def on_silent(self, connection: ConnectionT) -> None:
        """The peer daemon does not answer a ping. The connection may still heal."""
        ...

    def on_recovered(self, connection: ConnectionT) -> None:
        """The peer daemon answers again over a connection that was silent."""
        ...

    def on_request(self, connection: ConnectionT, request: wire.Request, payload: bytes) -> None:
        """A request has arrived, and its source has been proved. The owner must ``answer`` it once."""
        ...

    def on_cancel(self, connection: ConnectionT, number: int) -> None:
        """The peer daemon has cancelled its request ``number``, which may still be on its way."""
        ...

    def on_arrival(self, arrival: IncomingSession) -> None:
        """The peer opens a session."""
        ...

    def on_redeem(self, connection: ConnectionT, message: wire.RedeemInvitation) -> None:
        """The peer daemon redeems an invitation, and its source has been proved. The owner must answer it once."""
        ...

    def on_renew_replica(self, connection: ConnectionT, message: wire.RenewReplica) -> None:
        """The peer daemon reports as a replica. Nothing of it is verified. The owner must answer it once."""
        ...

    def on_observed_address(self, connection: ConnectionT, address: str) -> None:
        """The peer daemon reports the address that it sees of this daemon. It may lie."""
        ...

    def on_pushed_record(self, connection: ConnectionT, record: bytes) -> None:
        """The peer daemon pushes a signed record. It is not verified."""
        ...

    def on_spread_requests(self, connection: ConnectionT, message: wire.SpreadRequests) -> None:
        """The peer daemon says that a binding keeps nothing. Nothing of it is verified."""
        ...

    def on_owner_shown(self, connection: ConnectionT, message: wire.ShowOwner) -> None:
        """The peer daemon shows which daemon renews the replicas of an identity. Nothing of it is verified."""
        ...

    def on_closed(self, connection: ConnectionT) -> None:
        """The connection has ended. Nothing else is reported of it."""
        ...
