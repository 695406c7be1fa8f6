"""Contents of a backup without its secret keys, decoded."""

from __future__ import annotations

import base64
from typing import Annotated

import msgspec
from msgspec import Meta

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name
from fastn_p2p_client.permissions import Permissions

from ..credentials.owner_statement import read_owner_statement
from ..storage.enrolled_replicas import EnrolmentFile, SavedReplica, decode_enrolments
from ..storage.identity_store import BindingFile, IdentityFile
from ..storage.invitation_file import InvitationFile, SavedInvitation
from ..storage.permission_store import PermissionFile
from ..storage.replica_reports import ReplicaReport
from .archive import (
    CONTACTS,
    PEERS,
    REPLICAS,
    REPORTS,
    ArchiveError,
    BackedUpKey,
    Manifest,
    check_manifest,
    read_files,
    split_identity_path,
)

_Id52s = list[str]


class BackedUpPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Peer of the address book."""

    name: str
    id52: str
    added: str = ""
    record: str = ""
    older_records: tuple[str, ...] = ()
    invited: bool = False
    """True if an invitation has let it in, and the owner has not accepted it."""

    @property
    def records(self) -> tuple[bytes, ...]:
        """Return the signed records, the newest first."""
        return tuple(base64.b64decode(text) for text in (self.record, *self.older_records) if text)


class _Groups(msgspec.Struct):
    groups: dict[str, _Id52s] = {}


class _Blocked(msgspec.Struct):
    id52: str


class _BlockList(msgspec.Struct):
    blocked: list[_Blocked] = []


class _Revoked(msgspec.Struct):
    revocation: Annotated[bytes, Meta(max_length=1024)]


class _Revocations(msgspec.Struct):
    revoked: list[_Revoked] = []


class BackupContents:
    """Contents of an archive.

    Attributes:
        manifest: when and where it was made, and its keys.
        identities: identities by name. One whose file was missing or damaged has only what the manifest says.
        bindings: bindings by name of the identity.
        permissions: what the owner has granted to bindings, by name of the identity.
        replicas: replicas of the identities and the homes of their bindings, by name of the identity.
        reports: last reports of the replicas, by name of the identity.
        peers: address book.
        groups: ID52s of the members, by name of the group.
        blocked: ID52s.
        revocations: signed revocations of other identities.
        invitations: invitations of the identities, with their bearers.
        problems: files in it that cannot be used.
    """

    def __init__(self, archive: bytes) -> None:
        """Decode an archive.

        Raises:
            ArchiveError: it cannot be used.
        """
        files = read_files(archive)
        first = next(files, None)
        if first is None:
            raise ArchiveError("it is empty")
        self.manifest: Manifest = check_manifest(*first)
        self.identities: dict[str, IdentityFile] = {}
        self.bindings: dict[str, list[BindingFile]] = {}
        self.permissions: dict[str, PermissionFile] = {}
        self.replicas: dict[str, EnrolmentFile] = {}
        self.reports: dict[str, list[ReplicaReport]] = {}
        self.peers: list[BackedUpPeer] = []
        self.groups: dict[str, _Id52s] = {}
        self.blocked: _Id52s = []
        self.revocations: list[bytes] = []
        self.invitations: list[SavedInvitation] = []
        self.problems: list[str] = []
        for key in self.manifest.identities:
            _check_key(key)
            self.identities[key.name] = IdentityFile(name=key.name, id52=key.id52, created=key.created)
            self.bindings[key.name] = []
        for path, data in files:
            try:
                self._add(path, data)
            except (*UNDECODABLE, P2PError) as error:
                self.problems.append(f"{path} in the backup is damaged and left out: {error}")

    def permissions_of(self, identity: str, binding: BindingFile) -> tuple[str, ...]:
        """Return what the owner has granted to a binding."""
        saved = self.permissions.get(identity)
        return () if saved is None else saved.of(f"{binding.protocol}/{binding.instance}")

    def replicas_of(self, identity: str) -> tuple[SavedReplica, ...]:
        """Return the replicas of an identity that were not removed."""
        saved = self.replicas.get(identity)
        return () if saved is None else saved.present

    def homes_at(self, identity: str, endpoint: bytes) -> list[str]:
        """Return the bindings of an identity whose home is the replica at an endpoint, as ``PROTOCOL/INSTANCE``."""
        homes = self.replicas[identity].homes
        return [f"{each.protocol}/{each.instance}" for each in homes if each.endpoint == endpoint]

    def select(self, names: tuple[str, ...]) -> None:
        """Leave out every identity that is not among ``names``."""
        self.identities = {name: each for name, each in self.identities.items() if name in names}
        self.bindings = {name: each for name, each in self.bindings.items() if name in names}

    def _add(self, path: str, data: bytes) -> None:
        identity = split_identity_path(path)
        if identity is not None:
            self._add_identity_file(*identity, data)
        elif path.startswith(f"{PEERS}/"):
            peer = msgspec.json.decode(data, type=BackedUpPeer)
            check_name(peer.name, "a peer")
            PublicKey(peer.id52)
            _ = peer.records
            self.peers.append(peer)
        elif path == f"{CONTACTS}/groups.json":
            for name, members in msgspec.json.decode(data, type=_Groups).groups.items():
                check_name(name, "a group")
                self.groups[name] = [PublicKey(each).id52 for each in members]
        elif path == f"{CONTACTS}/blocked.json":
            self.blocked = [PublicKey(each.id52).id52 for each in msgspec.json.decode(data, type=_BlockList).blocked]
        elif path == f"{CONTACTS}/revoked.json":
            self.revocations = [each.revocation for each in msgspec.json.decode(data, type=_Revocations).revoked]
        elif path == f"{CONTACTS}/invitations.json":
            found = msgspec.json.decode(data, type=InvitationFile).invitations
            for each in found:
                each.check()
            self.invitations = found

    def _add_identity_file(self, name: str, rest: str, data: bytes) -> None:
        known = self.identities.get(name)
        if known is None:
            return
        parts = rest.split("/")
        if rest == "identity.json":
            found = msgspec.json.decode(data, type=IdentityFile)
            if (found.name, found.id52) != (name, known.id52):
                raise ValueError("it is about another identity")
            self.identities[name] = found
        elif rest == REPLICAS:
            enrolled = decode_enrolments(data)
            read_owner_statement(enrolled.owner, bytes(PublicKey(known.id52)))
            for each in enrolled.replicas:
                check_name(each.name, "a replica")
            self.replicas[name] = enrolled
        elif rest == REPORTS:
            self.reports[name] = msgspec.json.decode(data, type=list[ReplicaReport])
        elif rest == "permissions.json":
            granted = msgspec.json.decode(data, type=PermissionFile)
            Permissions.of(granted.all_lines())
            self.permissions[name] = granted
        elif len(parts) == 4 and (parts[0], parts[3]) == ("protocols", "config.json"):
            binding = msgspec.json.decode(data, type=BindingFile)
            if (binding.protocol, binding.instance) != (parts[1], parts[2]):
                raise ValueError("it is about another binding")
            check_name(binding.protocol, "a protocol")
            check_name(binding.instance, "an instance")
            self.bindings[name].append(binding)


def _check_key(key: BackedUpKey) -> None:
    try:
        check_name(key.name, "an identity")
        PublicKey(key.id52)
    except P2PError as error:
        raise ArchiveError(f"its list of identities is damaged: {error}") from None
