"""Replica files: the daemons that may speak for an identity, beside its key.

The vault signs a delegation for another daemon's endpoint only if the file names it, and only the gateway adds one.
Each enrolment has a random lineage of its own, so that the owner can retire it by a higher epoch.

The same file has the home of each binding that keeps state. Only the vault chooses terms: each is higher than all
earlier ones of the identity.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec.structs import replace

from fastn_p2p_actors.credentials import CLOCK_SKEW, SPEAK, Delegation
from fastn_p2p_actors.credentials.delegation import DELEGATION_VERSION, LINEAGE_BYTES, MAX_LIFETIME
from fastn_p2p_actors.credentials.peer_record import MAX_DELEGATIONS
from fastn_p2p_actors.storage.atomic_files import error_text, remove_file, write_atomically
from fastn_p2p_client.errors import BindingNotFound, HomeUnusable, Overloaded, ReplicaNotFound, ReplicaRemoved
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.keys import KEY_BYTES, id52_of
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.names import check_name

from .messages import (
    ClaimHome,
    EndReplica,
    EnrolledReplica,
    EnrolledReplicas,
    EnrolReplica,
    HomeEntry,
    PromoteHome,
    SignReplica,
)

SUFFIX: Final = ".replicas"
FORMAT: Final = 1
MAX_REPLICAS: Final = MAX_DELEGATIONS - 1
"""Replicas of one identity: its record lists them beside the owner's daemon."""

MAX_HOMES: Final = 64
"""Bindings of one identity that have a home."""


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """Replica in a file: JSON, bytes in base64."""

    name: str
    endpoint: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    lineage: Annotated[bytes, msgspec.Meta(min_length=LINEAGE_BYTES, max_length=LINEAGE_BYTES)]
    epoch: int
    removed: int = 0
    at_once: bool = False


class _SavedHome(msgspec.Struct, frozen=True, kw_only=True):
    """Home of a binding in a file; without an endpoint it is the owner's daemon."""

    protocol: str
    instance: str
    endpoint: bytes = b""
    term: int


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    replicas: tuple[_Saved, ...] = ()
    homes: tuple[_SavedHome, ...] = ()
    term: int = 0
    """Highest term of this identity so far, also of homes that are gone."""


_decoder: Final = msgspec.json.Decoder(_Content)


class ReplicaFiles:
    """Files ``<name>.replicas`` in a directory. An identity without replicas has none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, name: str, now: float) -> EnrolledReplicas:
        """Return the replicas of an identity, also removed ones whose last delegations may be valid at ``now``, and
        the homes of its bindings.

        Raises:
            InvalidName: the name is no name of an identity.
            HomeUnusable: the file cannot be read.
        """
        return _reply(_current(self._read(name), now))

    def enrol(self, request: EnrolReplica, now: float) -> EnrolledReplicas:
        """Add a replica, on disk when this returns, and return all of the identity.

        Raises:
            InvalidName, HomeUnusable, StorageFailed: it was not added.
            Overloaded: there are as many as a record can list.
        """
        content = _current(self._read(request.identity), now)
        present = [each for each in content.replicas if not each.removed]
        if any(each.endpoint == request.endpoint for each in present):
            return _reply(content)
        if len(present) >= MAX_REPLICAS:
            raise Overloaded(what=f"replicas of {request.identity}", limit=MAX_REPLICAS)
        base = name = check_name(request.name, "a replica")
        number = 1
        while any(each.name == name for each in content.replicas):
            number += 1
            name = f"{base[: MAX_NAME - 3]}-{number}"
        added = _Saved(name=name, endpoint=request.endpoint, lineage=secrets.token_bytes(LINEAGE_BYTES), epoch=1)
        return self._write(request.identity, replace(content, replicas=(*content.replicas, added)))

    def end(self, request: EndReplica, now: float) -> EnrolledReplicas:
        """Remove a replica, on disk when this returns, and return all of the identity.

        Bindings whose home it was have none until a daemon claims them.

        Raises:
            ReplicaNotFound: there is none of this name.
            InvalidName, HomeUnusable, StorageFailed: it was not removed.
        """
        content = _current(self._read(request.identity), now)
        ended = _named(content, request.identity, request.replica)
        changed = replace(ended, removed=ended.removed or max(1, int(now)), at_once=ended.at_once or request.at_once)
        replicas = tuple(changed if each is ended else each for each in content.replicas)
        homes = tuple(each for each in content.homes if each.endpoint != ended.endpoint)
        return self._write(request.identity, replace(content, replicas=replicas, homes=homes))

    def claim(self, request: ClaimHome, now: float) -> EnrolledReplicas:
        """Give a binding without a home one, on disk when this returns, and return all of the identity.

        Raises:
            ReplicaRemoved: the endpoint is not enrolled, so it can be no home.
            Overloaded: there are too many bindings with a home.
            InvalidName, HomeUnusable, StorageFailed: nothing was changed.
        """
        content = _current(self._read(request.identity), now)
        if any((each.protocol, each.instance) == (request.protocol, request.instance) for each in content.homes):
            return _reply(content)
        present = {each.endpoint for each in content.replicas if not each.removed}
        if request.endpoint and request.endpoint not in present:
            raise ReplicaRemoved(identity=request.identity)
        if not present:
            return _reply(content)  # the identity is at one daemon only
        if len(content.homes) >= MAX_HOMES:
            raise Overloaded(what=f"bindings of {request.identity} that have a home", limit=MAX_HOMES)
        return self._set_home(content, request.identity, (request.protocol, request.instance), request.endpoint, now)

    def promote(self, request: PromoteHome, now: float) -> EnrolledReplicas:
        """Move the home of a binding, on disk when this returns, and return all of the identity.

        Raises:
            ReplicaNotFound: there is no replica of this name, or it was removed.
            BindingNotFound: no daemon of the identity has claimed the binding.
            InvalidName, HomeUnusable, StorageFailed: nothing was changed.
        """
        content = _current(self._read(request.identity), now)
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
            return _reply(content)
        return self._set_home(content, request.identity, binding, endpoint, now)

    def _set_home(
        self, content: _Content, identity: str, binding: tuple[str, str], endpoint: bytes, now: float
    ) -> EnrolledReplicas:
        """Write a home with a new term. Terms follow the clock, so that those of a lost list stay below."""
        check_name(binding[0], "a protocol")
        check_name(binding[1], "an instance")
        term = max(content.term + 1, int(now))
        added = _SavedHome(protocol=binding[0], instance=binding[1], endpoint=endpoint, term=term)
        others = tuple(each for each in content.homes if (each.protocol, each.instance) != binding)
        return self._write(identity, replace(content, homes=(*others, added), term=term))

    def delegation_of(self, request: SignReplica, identity: bytes, own: bytes, now: int, seconds: int) -> Delegation:
        """Return the delegation that ``SignReplica`` asks for, for the identity to sign.

        Args:
            identity: public key of the identity.
            own: public key of this daemon's endpoint.

        Raises:
            ReplicaRemoved: the endpoint is not enrolled.
        """
        replicas = self.find(request.identity, now).replicas
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

    def _read(self, name: str) -> _Content:
        path = self._path(name)
        try:
            content = _decoder.decode(path.read_bytes())
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise HomeUnusable(path=str(path), reason=error_text(error)) from None
        except UNDECODABLE as error:
            raise HomeUnusable(path=str(path), reason=f"it is damaged: {error}") from None
        if content.format != FORMAT:
            reason = f"it has format {content.format}, which this version cannot read"
            raise HomeUnusable(path=str(path), reason=reason)
        return content

    def _write(self, name: str, content: _Content) -> EnrolledReplicas:
        write_atomically(self._path(name), msgspec.json.encode(content) + b"\n")
        return _reply(content)

    def _path(self, name: str) -> Path:
        return self._directory / f"{check_name(name, 'an identity')}{SUFFIX}"


def _current(content: _Content, now: float) -> _Content:
    """Return the content without replicas whose last delegations have ended since they were removed."""
    ended = MAX_LIFETIME + CLOCK_SKEW
    kept = tuple(each for each in content.replicas if not each.removed or now < each.removed + ended)
    return replace(content, replicas=kept)


def _named(content: _Content, identity: str, replica: str) -> _Saved:
    """Return the replica with a name or endpoint id, rather one that was not removed. Raises ReplicaNotFound."""
    named = [each for each in content.replicas if replica in (each.name, each.endpoint.hex())]
    if not named:
        raise ReplicaNotFound(identity=identity, replica=replica)
    return next((each for each in named if not each.removed), named[-1])


def _reply(content: _Content) -> EnrolledReplicas:
    return EnrolledReplicas(
        tuple(
            EnrolledReplica(each.name, each.endpoint, each.lineage, each.epoch, each.removed, each.at_once)
            for each in content.replicas
        ),
        tuple(HomeEntry(each.protocol, each.instance, each.endpoint, each.term) for each in content.homes),
    )
