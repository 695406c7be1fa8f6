"""Invitations on disk: ``peers/.invitations.json``, as the network process writes it and a backup contains it."""

from __future__ import annotations

import msgspec

from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name

from ..credentials.invitation import split_binding


class SavedBearer(msgspec.Struct, frozen=True):
    id52: str
    at_ms: int
    removed: bool = False


class SavedInvitation(msgspec.Struct, frozen=True):
    id: str
    hash: str
    """Hash of the secret, hex."""
    id52: str
    """Identity that invites."""
    identity: str
    """Name of that identity."""
    bindings: tuple[str, ...]
    uses: int
    created_ms: int
    expires_ms: int
    name: str = ""
    """Petname for its only bearer; empty for the one that the bearer proposes."""
    reserved: tuple[str, ...] = ()
    """Names that no bearer may choose: those of the owner's identities."""
    revoked: bool = False
    bearers: tuple[SavedBearer, ...] = ()

    def state(self, now_ms: int) -> str:
        """Return the state, as in ``InvitationInfo``."""
        if self.revoked:
            return "revoked"
        if len(self.bearers) >= self.uses:
            return "used-up"
        return "expired" if now_ms >= self.expires_ms else "open"

    def check(self) -> None:
        """Raise P2PError or ValueError if a hash, a key or a name is damaged."""
        bytes.fromhex(self.hash)
        for id52 in (self.id52, *(each.id52 for each in self.bearers)):
            PublicKey(id52)
        check_name(self.identity, "an identity")
        for binding in self.bindings:
            split_binding(binding)


class InvitationFile(msgspec.Struct):
    """Content of the file."""

    invitations: list[SavedInvitation] = []
