"""Replica files: the daemons that may speak for an identity, beside its key.

The vault signs a delegation for another daemon's endpoint only if the file names it, and only the gateway adds one.
Each enrolment has a random lineage of its own, so that the owner can retire it by a higher epoch.

The same file has the home of each binding that keeps state. Only the vault chooses terms: each is higher than all
earlier ones of the identity.

A backup carries the file to other vaults with the same key. Only one of them may act on it: the one that the highest
owner statement names. A vault that was restored becomes it when its owner says so (``AdoptEnrolled``).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from fastn_p2p_actors.credentials import CLOCK_SKEW, SPEAK, Delegation
from fastn_p2p_actors.credentials.delegation import DELEGATION_VERSION, LINEAGE_BYTES, MAX_LIFETIME
from fastn_p2p_actors.credentials.owner_statement import peek_owner_statement, read_owner_statement
from fastn_p2p_actors.credentials.peer_record import MAX_DELEGATIONS
from fastn_p2p_actors.storage.atomic_files import error_text, remove_file, write_atomically
from fastn_p2p_actors.storage.enrolled_replicas import EnrolmentFile, SavedHome, SavedReplica, decode_enrolments
from fastn_p2p_client.errors import (
    BadMessage,
    BadSignature,
    BindingNotFound,
    HomeUnusable,
    Overloaded,
    OwnerReplaced,
    ReplicaNotFound,
    ReplicaRemoved,
)
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.keys import id52_of
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.names import check_name

from .messages import (
    AdoptEnrolled,
    ClaimHome,
    EndReplica,
    EnrolledReplica,
    EnrolledReplicas,
    EnrolReplica,
    HomeEntry,
    PromoteHome,
    ReplicaOwner,
    SignReplica,
)

log = logging.getLogger(__name__)

SUFFIX: Final = ".replicas"
MAX_REPLICAS: Final = MAX_DELEGATIONS - 1
"""Replicas of one identity: its record lists them beside the owner's daemon."""

_TERM_MARGIN: Final = 3600
"""Terms follow the clock. So many are left out at an adoption: the earlier daemon's clock may be ahead, and each move
of a home has taken one."""
MAX_HOMES: Final = 64
"""Bindings of one identity that have a home."""


class ReplicaFiles:
    """Files ``<name>.replicas`` in a directory. An identity without replicas has none.

    Args:
        own_lineage: returns the lineage of this daemon's transport keys; empty while it is not known.

    ``OwnerReplaced`` means that another daemon renews the replicas of the identity, so that nothing was changed.
    """

    def __init__(self, directory: Path, own_lineage: Callable[[], bytes]) -> None:
        self._directory = directory
        self._own_lineage = own_lineage

    def find(self, name: str, now: float) -> EnrolledReplicas:
        """Return the replicas of an identity, also removed ones whose last delegations may be valid at ``now``, and
        the homes of its bindings.

        Raises:
            InvalidName: the name is no name of an identity.
            HomeUnusable: the file cannot be read.
        """
        return self._reply(_current(self._read(name), now))

    def enrol(self, request: EnrolReplica, now: float) -> EnrolledReplicas:
        """Add a replica, on disk when this returns, and return all of the identity.

        Raises:
            InvalidName, HomeUnusable, OwnerReplaced, StorageFailed: it was not added.
            Overloaded: there are as many as a record can list.
        """
        content = self._read_own(request.identity, now)
        present = [each for each in content.replicas if not each.removed]
        if any(each.endpoint == request.endpoint for each in present):
            return self._reply(content)
        if len(present) >= MAX_REPLICAS:
            raise Overloaded(what=f"replicas of {request.identity}", limit=MAX_REPLICAS)
        base = name = check_name(request.name, "a replica")
        number = 1
        while any(each.name == name for each in content.replicas):
            number += 1
            name = f"{base[: MAX_NAME - 3]}-{number}"
        added = SavedReplica(name=name, endpoint=request.endpoint, lineage=secrets.token_bytes(LINEAGE_BYTES), epoch=1)
        return self._write(request.identity, replace(content, replicas=(*content.replicas, added)))

    def end(self, request: EndReplica, now: float) -> EnrolledReplicas:
        """Remove a replica, on disk when this returns, and return all of the identity.

        Bindings whose home it was have none until a daemon claims them.

        Raises:
            ReplicaNotFound: there is none of this name.
            InvalidName, HomeUnusable, OwnerReplaced, StorageFailed: it was not removed.
        """
        content = self._read_own(request.identity, now)
        return self._write(
            request.identity, _without(content, request.identity, request.replica, now, at_once=request.at_once)
        )

    def adopt(self, request: AdoptEnrolled, now: float, sign: Callable[[int, int], bytes]) -> EnrolledReplicas:
        """Renew the replicas from now on, on disk when this returns, and return all of the identity.

        The homes stay where they are, with new terms: a replica may know later choices of the earlier owner's daemon.

        Args:
            sign: returns the statement with a generation and a term that this vault's daemon is the owner's.

        Raises:
            ReplicaNotFound: there is none of a name.
            InvalidName, HomeUnusable, StorageFailed: nothing was changed.
        """
        before = content = _current(self._read(request.identity), now)
        for name in request.without:
            content = _without(content, request.identity, name, now, at_once=True)
        if not self._is_here(content):
            generation = max(peek_owner_statement(content.owner).generation + 1, int(now))
            term = max(content.term, int(now)) + _TERM_MARGIN
            homes = tuple(replace(each, term=term + number) for number, each in enumerate(content.homes, 1))
            content = replace(content, owner=sign(generation, term), homes=homes, term=term + len(homes))
        return self._reply(content) if content == before else self._write(request.identity, content)

    def note_owner(self, name: str, blob: bytes, identity: bytes, now: float) -> EnrolledReplicas:
        """Keep an owner statement if it is the highest so far, on disk when this returns, and return all replicas.

        Args:
            identity: public key of the identity.

        Raises:
            BadMessage, BadSignature: it is not the identity's.
            InvalidName, HomeUnusable, StorageFailed: it was not kept.
        """
        content = _current(self._read(name), now)
        statement = read_owner_statement(blob, identity) if content.replicas else None
        if statement is None or statement.rank <= self._rank(content):
            return self._reply(content)
        return self._write(name, replace(content, owner=blob, term=max(content.term, statement.term)))

    def export(self, name: str, now: float, first: Callable[[], bytes]) -> bytes:
        """Return the content of a file for a backup; nothing if there are no replicas.

        Args:
            first: returns the statement that this vault's daemon is the owner's without any choice.

        Raises:
            HomeUnusable: the file cannot be read.
        """
        content = _current(self._read(name), now)
        if not content.replicas:
            return b""
        return msgspec.json.encode(content if content.owner else replace(content, owner=first())) + b"\n"

    def restore(self, name: str, content: EnrolmentFile, identity: bytes) -> None:
        """Write what a backup has, unless it is not the identity's. Raises StorageFailed."""
        try:
            read_owner_statement(content.owner, identity)
        except (BadMessage, BadSignature) as error:
            log.warning("the replicas of %s are not restored: %s", name, error)
            return
        self._write(name, content)

    def claim(self, request: ClaimHome, now: float) -> EnrolledReplicas:
        """Give a binding without a home one, on disk when this returns, and return all of the identity.

        Raises:
            ReplicaRemoved: the endpoint is not enrolled, so it can be no home.
            Overloaded: there are too many bindings with a home.
            InvalidName, HomeUnusable, OwnerReplaced, StorageFailed: nothing was changed.
        """
        content = self._read_own(request.identity, now)
        if any((each.protocol, each.instance) == (request.protocol, request.instance) for each in content.homes):
            return self._reply(content)
        present = {each.endpoint for each in content.replicas if not each.removed}
        if request.endpoint and request.endpoint not in present:
            raise ReplicaRemoved(identity=request.identity)
        if not present:
            return self._reply(content)  # the identity is at one daemon only
        if len(content.homes) >= MAX_HOMES:
            raise Overloaded(what=f"bindings of {request.identity} that have a home", limit=MAX_HOMES)
        return self._set_home(content, request.identity, (request.protocol, request.instance), request.endpoint, now)

    def promote(self, request: PromoteHome, now: float) -> EnrolledReplicas:
        """Move the home of a binding, on disk when this returns, and return all of the identity.

        Raises:
            ReplicaNotFound: there is no replica of this name, or it was removed.
            BindingNotFound: no daemon of the identity has claimed the binding.
            InvalidName, HomeUnusable, OwnerReplaced, StorageFailed: nothing was changed.
        """
        content = self._read_own(request.identity, now)
        endpoint = b""
        if request.replica:
            replica = _named(content, request.identity, request.replica)
            if replica.removed:
                raise ReplicaNotFound(identity=request.identity, replica=request.replica)
            endpoint = replica.endpoint
        binding = request.protocol, request.instance
        known = next((each for each in content.homes if (each.protocol, each.instance) == binding), None)
        if known is None:
            raise BindingNotFound(identity=request.identity, protocol=request.protocol, instance=request.instance)
        if known.endpoint == endpoint:
            return self._reply(content)
        return self._set_home(content, request.identity, binding, endpoint, now)

    def _set_home(
        self, content: EnrolmentFile, identity: str, binding: tuple[str, str], endpoint: bytes, now: float
    ) -> EnrolledReplicas:
        """Write a home with a new term. Terms follow the clock, so that those of a lost list stay below."""
        check_name(binding[0], "a protocol")
        check_name(binding[1], "an instance")
        term = max(content.term + 1, int(now))
        added = SavedHome(protocol=binding[0], instance=binding[1], endpoint=endpoint, term=term)
        others = tuple(each for each in content.homes if (each.protocol, each.instance) != binding)
        return self._write(identity, replace(content, homes=(*others, added), term=term))

    def delegation_of(self, request: SignReplica, identity: bytes, own: bytes, now: int, seconds: int) -> Delegation:
        """Return the delegation that ``SignReplica`` asks for, for the identity to sign.

        Args:
            identity: public key of the identity.
            own: public key of this daemon's endpoint.

        Raises:
            ReplicaRemoved: the endpoint is not enrolled.
            OwnerReplaced: another daemon renews the replicas.
        """
        replicas = self._read_own(request.identity, now).replicas
        known = [each for each in replicas if each.endpoint == request.endpoint]
        if request.retired:
            known = [each for each in known if each.lineage == request.retired and each.removed and each.at_once]
        else:
            known = [each for each in known if not each.removed]
        if not known:
            raise ReplicaRemoved(identity=id52_of(identity))
        replica = known[0]
        endpoint, epoch = (own, replica.epoch + 1) if replica.removed else (replica.endpoint, replica.epoch)
        return Delegation(DELEGATION_VERSION, identity, endpoint, replica.lineage, epoch, now, now + seconds, (SPEAK,))

    def delete(self, name: str) -> None:
        """Delete the file of an identity, if there is one. Raises StorageFailed."""
        path = self._path(name)
        if path.exists():
            remove_file(path)

    def _read(self, name: str) -> EnrolmentFile:
        path = self._path(name)
        try:
            return decode_enrolments(path.read_bytes())
        except FileNotFoundError:
            return EnrolmentFile()
        except OSError as error:
            raise HomeUnusable(path=str(path), reason=error_text(error)) from None
        except UNDECODABLE as error:
            raise HomeUnusable(path=str(path), reason=f"it is damaged: {error}") from None

    def _read_own(self, name: str, now: float) -> EnrolmentFile:
        """Return the present content of a file on which this vault may act. Raises OwnerReplaced."""
        content = _current(self._read(name), now)
        if not self._is_here(content):
            statement = peek_owner_statement(content.owner)
            raise OwnerReplaced(identity=name, owner=statement.daemon, since=statement.issued_text)
        return content

    def _is_here(self, content: EnrolmentFile) -> bool:
        """Return whether this vault's daemon is the owner's."""
        return not content.owner or peek_owner_statement(content.owner).lineage == self._own_lineage()

    def _rank(self, content: EnrolmentFile) -> tuple[int, bytes]:
        return peek_owner_statement(content.owner).rank if content.owner else (0, self._own_lineage())

    def _write(self, name: str, content: EnrolmentFile) -> EnrolledReplicas:
        write_atomically(self._path(name), msgspec.json.encode(content) + b"\n")
        return self._reply(content)

    def _reply(self, content: EnrolmentFile) -> EnrolledReplicas:
        return EnrolledReplicas(
            tuple(
                EnrolledReplica(each.name, each.endpoint, each.lineage, each.epoch, each.removed, each.at_once)
                for each in content.replicas
            ),
            tuple(HomeEntry(each.protocol, each.instance, each.endpoint, each.term) for each in content.homes),
            ReplicaOwner(content.owner, self._is_here(content)) if content.owner else None,
        )

    def _path(self, name: str) -> Path:
        return self._directory / f"{check_name(name, 'an identity')}{SUFFIX}"


def _current(content: EnrolmentFile, now: float) -> EnrolmentFile:
    """Return the content without replicas whose last delegations have ended since they were removed."""
    ended = MAX_LIFETIME + CLOCK_SKEW
    kept = tuple(each for each in content.replicas if not each.removed or now < each.removed + ended)
    return replace(content, replicas=kept)


def _without(content: EnrolmentFile, identity: str, replica: str, now: float, *, at_once: bool) -> EnrolmentFile:
    """Return the content with a replica marked as removed. Raises ReplicaNotFound."""
    ended = _named(content, identity, replica)
    changed = replace(ended, removed=ended.removed or max(1, int(now)), at_once=ended.at_once or at_once)
    replicas = tuple(changed if each is ended else each for each in content.replicas)
    homes = tuple(each for each in content.homes if each.endpoint != ended.endpoint)
    return replace(content, replicas=replicas, homes=homes)


def _named(content: EnrolmentFile, identity: str, replica: str) -> SavedReplica:
    """Return the replica with a name or endpoint id, rather one that was not removed. Raises ReplicaNotFound."""
    named = [each for each in content.replicas if replica in (each.name, each.endpoint.hex())]
    if not named:
        raise ReplicaNotFound(identity=identity, replica=replica)
    return next((each for each in named if not each.removed), named[-1])
