"""Replica files: the daemons that may speak for an identity, beside its key.

The vault signs a delegation for another daemon's endpoint only if the file names it, and only the gateway adds one.
Each enrolment has a random lineage of its own, so that the owner can retire it by a higher epoch.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Final

import msgspec

from fastn_p2p_actors.credentials import CLOCK_SKEW, SPEAK, Delegation
from fastn_p2p_actors.credentials.delegation import DELEGATION_VERSION, LINEAGE_BYTES, MAX_LIFETIME
from fastn_p2p_actors.credentials.peer_record import MAX_DELEGATIONS
from fastn_p2p_actors.storage.atomic_files import error_text, remove_file, write_atomically
from fastn_p2p_client.errors import HomeUnusable, Overloaded, ReplicaNotFound, ReplicaRemoved
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.keys import KEY_BYTES, id52_of
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.names import check_name

from .messages import EndReplica, EnrolledReplica, EnrolReplica, SignReplica

SUFFIX: Final = ".replicas"
FORMAT: Final = 1
MAX_REPLICAS: Final = MAX_DELEGATIONS - 1
"""Replicas of one identity: its record lists them beside the owner's daemon."""


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """Replica in a file: JSON, bytes in base64."""

    name: str
    endpoint: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    lineage: Annotated[bytes, msgspec.Meta(min_length=LINEAGE_BYTES, max_length=LINEAGE_BYTES)]
    epoch: int
    removed: int = 0
    at_once: bool = False


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    replicas: tuple[_Saved, ...] = ()


_decoder: Final = msgspec.json.Decoder(_Content)


class ReplicaFiles:
    """Files ``<name>.replicas`` in a directory. An identity without replicas has none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, name: str, now: float) -> tuple[EnrolledReplica, ...]:
        """Return the replicas of an identity, also removed ones whose last delegations may be valid at ``now``.

        Raises:
            InvalidName: the name is no name of an identity.
            HomeUnusable: the file cannot be read.
        """
        path = self._path(name)
        try:
            content = _decoder.decode(path.read_bytes())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise HomeUnusable(path=str(path), reason=error_text(error)) from None
        except UNDECODABLE as error:
            raise HomeUnusable(path=str(path), reason=f"it is damaged: {error}") from None
        if content.format != FORMAT:
            reason = f"it has format {content.format}, which this version cannot read"
            raise HomeUnusable(path=str(path), reason=reason)
        found = (
            EnrolledReplica(each.name, each.endpoint, each.lineage, each.epoch, each.removed, each.at_once)
            for each in content.replicas
        )
        return tuple(each for each in found if not each.removed or now < each.removed + MAX_LIFETIME + CLOCK_SKEW)

    def enrol(self, request: EnrolReplica, now: float) -> tuple[EnrolledReplica, ...]:
        """Add a replica, on disk when this returns, and return all of the identity.

        Raises:
            InvalidName, HomeUnusable, StorageFailed: it was not added.
            Overloaded: there are as many as a record can list.
        """
        known = self.find(request.identity, now)
        present = [each for each in known if not each.removed]
        if any(each.endpoint == request.endpoint for each in present):
            return known
        if len(present) >= MAX_REPLICAS:
            raise Overloaded(what=f"replicas of {request.identity}", limit=MAX_REPLICAS)
        base = name = check_name(request.name, "a replica")
        number = 1
        while any(each.name == name for each in known):
            number += 1
            name = f"{base[: MAX_NAME - 3]}-{number}"
        added = EnrolledReplica(name, request.endpoint, secrets.token_bytes(LINEAGE_BYTES), 1)
        return self._write(request.identity, (*known, added))

    def end(self, request: EndReplica, now: float) -> tuple[EnrolledReplica, ...]:
        """Remove a replica, on disk when this returns, and return all of the identity.

        Raises:
            ReplicaNotFound: there is none of this name.
            InvalidName, HomeUnusable, StorageFailed: it was not removed.
        """
        known = self.find(request.identity, now)
        named = [each for each in known if request.replica in (each.name, each.endpoint.hex())]
        if not named:
            raise ReplicaNotFound(identity=request.identity, replica=request.replica)
        ended = next((each for each in named if not each.removed), named[-1])
        changed = msgspec.structs.replace(
            ended, removed=ended.removed or max(1, int(now)), at_once=ended.at_once or request.at_once
        )
        return self._write(request.identity, tuple(changed if each is ended else each for each in known))

    def delegation_of(self, request: SignReplica, identity: bytes, own: bytes, now: int, seconds: int) -> Delegation:
        """Return the delegation that ``SignReplica`` asks for, for the identity to sign.

        Args:
            identity: public key of the identity.
            own: public key of this daemon's endpoint.

        Raises:
            ReplicaRemoved: the endpoint is not enrolled.
        """
        known = [each for each in self.find(request.identity, now) if each.endpoint == request.endpoint]
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

    def _write(self, name: str, replicas: tuple[EnrolledReplica, ...]) -> tuple[EnrolledReplica, ...]:
        saved = tuple(
            _Saved(
                name=each.name,
                endpoint=each.endpoint,
                lineage=each.lineage,
                epoch=each.epoch,
                removed=each.removed,
                at_once=each.at_once,
            )
            for each in replicas
        )
        write_atomically(self._path(name), msgspec.json.encode(_Content(replicas=saved)) + b"\n")
        return replicas

    def _path(self, name: str) -> Path:
        return self._directory / f"{check_name(name, 'an identity')}{SUFFIX}"
