"""Invitations that this daemon has made, and the permissions of the bearers that they have let in.

The file has a hash of each secret, never the secret. A bearer is counted and gets its permission by the same write, on
disk before it is told. So a crash can neither let in one bearer too many nor count one twice: a bearer that repeats its
request is known already. Everything runs on the event loop without a wait in between, so two bearers cannot race.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from fastn_p2p_client.errors import InvitationNotFound, InvitationRefused, Overloaded
from fastn_p2p_client.ipc.messages import InvitationInfo, InvitedPeer
from fastn_p2p_client.keys import id52_of, proven_key

from ...credentials.invitation import hash_secret, id_of
from ...storage.atomic_files import write_atomically
from ...storage.invitation_file import InvitationFile, SavedBearer, SavedInvitation
from .lazy_file import load_file

log = logging.getLogger(__name__)

MAX_INVITATIONS: Final = 1000
"""Invitations that are kept. The file is written at each change, and has some 200 bytes for each."""
MAX_BEARERS: Final = 10_000
"""Bearers that all invitations together may let in: used and open uses."""
KEPT_SECONDS: Final = 30 * 24 * 3600
"""Seconds for which an invitation without a bearer is kept after its end, so that its bearer is told what happened."""
MIN_PREFIX: Final = 4
"""Characters of an id that name an invitation, if no other one begins with them."""
PREFIX: Final = "invitation:"
"""Prefix of the reason by which a bearer is admitted."""
_NO_HASH: Final = bytes(32)


class Redeemed(NamedTuple):
    """A bearer that was let in."""

    id: str
    identity: str
    bindings: tuple[str, ...]
    name: str
    """Petname that the inviter has chosen; empty if it has not."""
    reserved: tuple[str, ...]
    """Names that the bearer may not choose."""
    uses_left: int
    is_new: bool
    """False if the bearer was let in before, and repeats its request."""


class InvitationStore:
    """Invitations by id, kept in one file. A change that cannot be written raises StorageFailed and changes nothing.

    Args:
        path: the file.
        now: returns Unix time.
        on_change: called when a permission was given or taken back.
    """

    def __init__(self, path: Path, now: Callable[[], float], on_change: Callable[[], object] = lambda: None) -> None:
        self._path = path
        self._now = now
        self._on_change = on_change
        self._by_id: dict[str, SavedInvitation] = {}
        self._by_bearer: dict[bytes, dict[str, SavedInvitation]] = {}
        """Invitations that give a permission to each bearer that has one, by id."""

    def load(self) -> str:
        """Read the file. Return the reason why it cannot be used; empty if it can, or if there is none."""
        consequence = ": invitations are refused, and nobody is let in by one"
        return load_file(self._path, InvitationFile, self._restore_file, consequence)

    def _restore_file(self, saved: InvitationFile) -> None:
        for each in saved.invitations:
            each.check()
        for each in saved.invitations:
            self._by_id[each.id] = each
            self._index(each, None)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def open(self) -> int:
        """Return the number of invitations that may still let in a bearer."""
        now_ms = self._now_ms()
        return sum(each.state(now_ms) == "open" for each in self._by_id.values())

    # ── permissions ──────────────────────────────────────────────────────────────────────────────

    def __contains__(self, key: bytes) -> bool:
        """Return whether an identity has any permission by an invitation."""
        return key in self._by_bearer

    def find_permission(self, key: bytes, name: str, identity: bytes | None, protocol: str, instance: str) -> str:
        """Return the id of the invitation that opens a binding to an identity; empty if none does.

        Args:
            key: the identity that asks.
            name: name of the identity with the binding.
            identity: its key; None if it is not known, and the name has to do.
        """
        for each in self._by_bearer.get(key, {}).values():
            same = each.identity == name if identity is None else each.id52 == id52_of(identity)
            if same and f"{protocol}/{instance}" in each.bindings:
                return each.id
        return ""

    def bearers_of(self, name: str, protocol: str, instance: str) -> list[tuple[bytes, str]]:
        """Return key and invitation of each identity to which a binding is open."""
        return [
            (_key(bearer), each.id)
            for each in self._by_id.values()
            if each.identity == name and f"{protocol}/{instance}" in each.bindings
            for bearer in each.bearers
            if not bearer.removed
        ]

    # ── of the owner ─────────────────────────────────────────────────────────────────────────────

    def create(
        self,
        identity: bytes,
        name: str,
        secret: bytes,
        *,
        bindings: Sequence[str],
        uses: int,
        expires: int,
        petname: str = "",
        reserved: Sequence[str] = (),
    ) -> InvitationInfo:
        """Add an invitation. Raises Overloaded or StorageFailed.

        Args:
            identity, name: key and name of the identity that invites.
            expires: Unix time.
            petname: for its only bearer; empty for the one that the bearer proposes.
            reserved: names that no bearer may choose.
        """
        gone: dict[str, SavedInvitation | None] = {
            each.id: None for each in self._by_id.values() if not self._is_kept(each)
        }
        kept = [each for each in self._by_id.values() if each.id not in gone]
        if len(kept) >= MAX_INVITATIONS:
            raise Overloaded(what="invitations", limit=MAX_INVITATIONS)
        now_ms = self._now_ms()
        places = sum(each.uses if each.state(now_ms) == "open" else len(each.bearers) for each in kept)
        if places + uses > MAX_BEARERS:
            raise Overloaded(what="bearers of all invitations", limit=MAX_BEARERS)
        digest = hash_secret(identity, secret)
        added = SavedInvitation(
            id=id_of(digest),
            hash=digest.hex(),
            id52=id52_of(identity),
            identity=name,
            bindings=tuple(bindings),
            uses=uses,
            created_ms=now_ms,
            expires_ms=expires * 1000,
            name=petname,
            reserved=tuple(reserved),
        )
        self._store({**gone, added.id: added})
        return self._info(added, lambda _: "")

    def revoke(self, id: str, *, access: bool) -> str:
        """Let in no more bearers, and return the whole id. With ``access``, take all permissions by it back.

        Raises:
            InvitationNotFound: there is none with this id, or with an id that begins so.
            StorageFailed: nothing has changed.
        """
        found = [each for each in self._by_id.values() if each.id == id]
        if not found and len(id) >= MIN_PREFIX:
            found = [each for each in self._by_id.values() if each.id.startswith(id)]
        if len(found) != 1:
            raise InvitationNotFound(invitation=id[:64])
        (invitation,) = found
        bearers = tuple(replace(each, removed=True) for each in invitation.bearers) if access else invitation.bearers
        self._store({invitation.id: replace(invitation, revoked=True, bearers=bearers)})
        return invitation.id

    def remove_bearer(self, key: bytes) -> None:
        """Take every permission of an identity back: it was removed. No invitation that it has used lets it in again.

        Raises:
            StorageFailed: nothing has changed.
        """
        self._replace_bearer(key, lambda bearer: replace(bearer, removed=True))

    def replace_bearer(self, key: bytes, successor: bytes) -> None:
        """Give the permissions of a revoked identity to its successor. Raises StorageFailed."""
        self._replace_bearer(key, lambda bearer: replace(bearer, id52=id52_of(successor)))

    def _replace_bearer(self, key: bytes, change: Callable[[SavedBearer], SavedBearer]) -> None:
        id52 = id52_of(key)
        self._store(
            {
                each.id: replace(
                    each, bearers=tuple(change(bearer) if bearer.id52 == id52 else bearer for bearer in each.bearers)
                )
                for each in self._by_bearer.get(key, {}).values()
            }
        )

    def remove_binding(self, name: str, protocol: str = "", instance: str = "") -> None:
        """Remove a binding from every invitation, because it was removed; without a protocol, those of an identity.

        An invitation that opens nothing more goes. Raises StorageFailed.
        """
        gone = f"{protocol}/{instance}"
        changed: dict[str, SavedInvitation | None] = {}
        for each in self._by_id.values():
            left = tuple(binding for binding in each.bindings if protocol and binding != gone)
            if each.identity == name and left != each.bindings:
                changed[each.id] = replace(each, bindings=left) if left else None
        self._store(changed)

    def restore(self, invitation: SavedInvitation) -> None:
        """Add an invitation of a backup for the permissions of its bearers. It lets in nobody else.

        An invitation that is here already stays as it is.

        Raises:
            Overloaded: there are too many.
            StorageFailed: nothing has changed.
        """
        if invitation.id in self._by_id:
            return
        bearers = sum(len(each.bearers) for each in self._by_id.values())
        if len(self._by_id) >= MAX_INVITATIONS or bearers + len(invitation.bearers) > MAX_BEARERS:
            raise Overloaded(what="invitations", limit=MAX_INVITATIONS)
        if invitation.state(self._now_ms()) == "open":
            invitation = replace(invitation, revoked=True)
        self._store({invitation.id: invitation})

    def infos(self, identity: str, name_of: Callable[[bytes], str]) -> list[InvitationInfo]:
        """Return the invitations, the newest first.

        Args:
            identity: name of the only identity of interest; empty for all.
            name_of: returns the petname of a key, or an empty string.
        """
        found = [each for each in self._by_id.values() if identity in ("", each.identity)]
        return [self._info(each, name_of) for each in reversed(found)]

    def info(self, id: str, name_of: Callable[[bytes], str]) -> InvitationInfo:
        """Return an invitation by its whole id. ``name_of`` as for ``infos``."""
        return self._info(self._by_id[id], name_of)

    # ── of bearers ───────────────────────────────────────────────────────────────────────────────

    def redeem(self, identity: bytes, secret: bytes, bearer: bytes) -> Redeemed:
        """Let a bearer in. It is on disk when this returns.

        Nothing but the secret leads to an invitation, and it is compared in constant time. So a stranger learns from
        the answer and from its time only that it does not know a secret.

        Args:
            identity: key of the identity that is to have made the invitation.
            bearer: key of the identity that asks, which has been proved.

        Raises:
            InvitationRefused: it does not let the bearer in.
            StorageFailed: nothing has changed.
        """
        digest = hash_secret(identity, secret)
        found = self._by_id.get(id_of(digest))
        known = bytes.fromhex(found.hash) if found is not None else _NO_HASH
        if not hmac.compare_digest(known, digest) or found is None:
            raise InvitationRefused(peer=id52_of(identity), reason="unknown")
        id52 = id52_of(bearer)
        before = next((each for each in found.bearers if each.id52 == id52), None)
        if before is None:
            state = found.state(self._now_ms())
            if state != "open":
                raise InvitationRefused(peer=id52_of(identity), reason=state)
            found = replace(found, bearers=(*found.bearers, SavedBearer(id52, self._now_ms())))
            self._store({found.id: found})
        elif before.removed:
            raise InvitationRefused(peer=id52_of(identity), reason="revoked")
        left = found.uses - len(found.bearers)
        is_new = before is None
        return Redeemed(found.id, found.identity, found.bindings, found.name, found.reserved, left, is_new)

    # ── the file ─────────────────────────────────────────────────────────────────────────────────

    def _now_ms(self) -> int:
        return int(self._now() * 1000)

    def _is_kept(self, invitation: SavedInvitation) -> bool:
        """Return whether an invitation may still let somebody in, has done so, or has only just ended."""
        has_bearer = any(not each.removed for each in invitation.bearers)
        return has_bearer or self._now_ms() < invitation.expires_ms + KEPT_SECONDS * 1000

    def _store(self, changed: Mapping[str, SavedInvitation | None]) -> None:
        """Write the changed invitations to disk, then let them take effect. None removes one."""
        if not changed:
            return
        by_id = {id: each for id, each in {**self._by_id, **changed}.items() if each is not None}
        write_atomically(self._path, msgspec.json.encode(InvitationFile(list(by_id.values()))))
        before, self._by_id = self._by_id, by_id
        for id, each in changed.items():
            self._index(each, before.get(id))
        self._on_change()

    def _index(self, invitation: SavedInvitation | None, before: SavedInvitation | None) -> None:
        """Note the bearers of an invitation in place of those that it had before."""
        if before is not None:
            for key in map(_key, before.bearers):
                of_bearer = self._by_bearer.get(key, {})
                of_bearer.pop(before.id, None)
                if not of_bearer:
                    self._by_bearer.pop(key, None)
        if invitation is not None:
            for bearer in invitation.bearers:
                if not bearer.removed:
                    self._by_bearer.setdefault(_key(bearer), {})[invitation.id] = invitation

    def _info(self, invitation: SavedInvitation, name_of: Callable[[bytes], str]) -> InvitationInfo:
        return InvitationInfo(
            id=invitation.id,
            identity=invitation.identity,
            bindings=list(invitation.bindings),
            state=invitation.state(self._now_ms()),
            uses=invitation.uses,
            bearers=[
                InvitedPeer(name=name_of(_key(each)), id52=each.id52, at_ms=each.at_ms, removed=each.removed)
                for each in invitation.bearers
            ],
            created_ms=invitation.created_ms,
            expires_ms=invitation.expires_ms,
            name=invitation.name,
        )


def _key(bearer: SavedBearer) -> bytes:
    return bytes(proven_key(bearer.id52))
