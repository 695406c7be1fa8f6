"""Plan of a restore: which identities, peers and groups of a backup come into this home, under which names.

The plan is made before anything is changed. An identity or peer that is here under the same name and with the same key
stays as it is. Any other conflict is resolved by the owner, with another name or by leaving it out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from fastn_p2p_client.errors import BackupConflict, IdentityNotFound, P2PError, PeerNameUnknown
from fastn_p2p_client.ipc.messages import GroupList, PeerInfo, RestoreBackup
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name

from ..backup.contents import BackedUpPeer, BackupContents
from ..network.admin_messages import GetGroups
from ..storage.identity_store import BindingFile, IdentityFile
from ..storage.invitation_file import SavedInvitation
from ..storage.permission_store import PermissionFile
from ..storage.replica_reports import ReplicaReport
from .context import GatewayContext
from .granted_permissions import restored_permissions

_GROUP = "group:"


class PlannedIdentity(msgspec.Struct, frozen=True):
    name_in_backup: str
    identity: IdentityFile
    bindings: list[BindingFile]
    permissions: PermissionFile = PermissionFile(complete=True)
    has_replicas: bool = False
    reports: list[ReplicaReport] = []
    """Last reports of its replicas."""


class RestorePlan(msgspec.Struct, kw_only=True):
    """The plan, as the journal of a restore has it on disk.

    Attributes:
        committed: True once every key is in the vault: from then on, a restart completes the restore.
    """

    identities: list[PlannedIdentity] = []
    skipped: list[str] = []
    """Identities that stay as they are here, or are left out."""
    peers: list[BackedUpPeer] = []
    groups: dict[str, list[str]] = {}
    blocked: list[str] = []
    revocations: list[bytes] = []
    invitations: list[SavedInvitation] = []
    problems: list[str] = []
    """Things in the backup that are not restored, for the owner."""
    committed: bool = False

    @property
    def names(self) -> list[str]:
        """Return the names of the new identities."""
        return [each.identity.name for each in self.identities]


async def make_plan(context: GatewayContext, message: RestoreBackup, contents: BackupContents) -> RestorePlan:
    """Return the plan of a restore.

    Raises:
        IdentityNotFound, PeerNameUnknown: an option names what is not in the backup.
        InvalidName: a new name cannot be used.
        BackupConflict: something is in the way.
    """
    if message.identities:
        for name in message.identities:
            if name not in contents.identities:
                raise IdentityNotFound(identity=name)
        contents.select(message.identities)
    planner = _Planner(message, RestorePlan())
    planner.plan_identities(contents, _identities_here(context))
    peers, groups = await context.peers_by_name(), await _groups_here(context)
    planner.plan_peers(contents, peers, groups)
    planner.plan_bindings(contents)
    if planner.conflicts:
        raise BackupConflict(conflicts="; ".join(planner.conflicts))
    planner.plan_invitations(contents)
    await asyncio.to_thread(planner.plan_permissions, contents, context)
    return planner.plan


class _Planner:
    def __init__(self, message: RestoreBackup, plan: RestorePlan) -> None:
        self.plan = plan
        self.conflicts: list[str] = []
        self._message = message
        self._renames = dict(message.renames)
        self._peer_renames = dict(message.peer_renames)
        self._substitutes: dict[str, tuple[str, ...]] = {}
        """Entries of restored access lists that name another peer here, or none, and the entries to write instead."""

    def plan_identities(self, contents: BackupContents, here: Mapping[str, str]) -> None:
        """Plan the identities. ``here`` has the ID52 of each identity of this home, or nothing for a damaged one."""
        for name in self._renames:
            if name not in contents.identities:
                raise IdentityNotFound(identity=name)
        names_of = {id52: name for name, id52 in here.items()}
        taken: set[str] = set()
        for name, found in contents.identities.items():
            new_name = check_name(self._renames.get(name, name), "an identity")
            if found.id52 in names_of:
                other = names_of[found.id52]
                if other == new_name or self._message.skip_identities:
                    self.plan.skipped.append(name)
                else:
                    self.conflicts.append(f"the identity {other!r} here has the key of {name!r}")
            elif new_name in here or new_name in taken:
                if self._message.skip_identities:
                    self.plan.skipped.append(name)
                else:
                    self.conflicts.append(f"there is another identity {new_name!r}")
            else:
                taken.add(new_name)
                online = found.online and not found.revoked and not self._message.offline
                identity = msgspec.structs.replace(found, name=new_name, online=online)
                reports, has_replicas = contents.reports.get(name, []), name in contents.replicas
                planned = PlannedIdentity(name, identity, [], has_replicas=has_replicas, reports=reports)
                self.plan.identities.append(planned)

    def plan_peers(
        self, contents: BackupContents, here: Mapping[str, PeerInfo], groups: Mapping[str, frozenset[str]]
    ) -> None:
        """Plan address book and groups. ``here`` has the peers of this home by petname, ``groups`` the members."""
        in_backup = {peer.name for peer in contents.peers}
        for name in self._peer_renames:
            if name not in in_backup:
                raise PeerNameUnknown(name=name)
        names_of = {peer.id52: name for name, peer in here.items()}
        taken: set[str] = set()
        for peer in contents.peers:
            new_name = check_name(self._peer_renames.get(peer.name, peer.name), "a peer")
            if not self._message.peers:
                self._substitutes[peer.name] = (names_of.get(peer.id52, peer.id52),)
            elif peer.id52 in names_of:
                self._substitute(peer.name, names_of[peer.id52])
                self.plan.peers.append(msgspec.structs.replace(peer, name=names_of[peer.id52]))
            elif new_name in here or new_name in taken:
                self._substitutes[peer.name] = (peer.id52,)
                if not self._message.skip_peers:
                    self.conflicts.append(f"there is another peer {new_name!r}")
            else:
                taken.add(new_name)
                self._substitute(peer.name, new_name)
                self.plan.peers.append(msgspec.structs.replace(peer, name=new_name))
        for name, members in contents.groups.items():
            if name in groups and groups[name] == frozenset(members):
                continue
            if name in groups or not self._message.peers:
                self._substitutes[f"{_GROUP}{name}"] = tuple(members)
                if self._message.peers and not self._message.skip_peers:
                    self.conflicts.append(f"there is another group {name!r}")
            else:
                self.plan.groups[name] = members
        if self._message.peers:
            self.plan.blocked, self.plan.revocations = contents.blocked, contents.revocations

    def plan_bindings(self, contents: BackupContents) -> None:
        """Plan the bindings of the new identities. Their access lists admit the same peers as before."""
        if not self._message.protocols:
            return
        for planned in self.plan.identities:
            for binding in contents.bindings[planned.name_in_backup]:
                allow = dict.fromkeys(new for entry in binding.allow for new in self._substitutes.get(entry, (entry,)))
                planned.bindings.append(msgspec.structs.replace(binding, allow=tuple(allow)))

    def plan_permissions(self, contents: BackupContents, context: GatewayContext) -> None:
        """Plan what the bindings may do. Call it in a thread."""
        for index, planned in enumerate(self.plan.identities):
            saved = contents.permissions.get(planned.name_in_backup, PermissionFile())
            permissions, problems = restored_permissions(context, planned.identity.name, planned.bindings, saved)
            self.plan.identities[index] = msgspec.structs.replace(planned, permissions=permissions)
            self.plan.problems += problems

    def plan_invitations(self, contents: BackupContents) -> None:
        """Plan the permissions that invitations have given to peers of the backup.

        The invitations themselves stay behind: they may have been revoked or used since the backup was made.
        """
        planned = {each.identity.id52: each for each in self.plan.identities}
        peers = {peer.id52 for peer in self.plan.peers}
        open_ones: Counter[str] = Counter()
        now_ms = int(time.time() * 1000)
        for each in contents.invitations:
            inviter = planned.get(each.id52)
            if inviter is None:
                continue
            name = inviter.identity.name
            open_ones[name] += each.state(now_ms) == "open"
            here = {f"{binding.protocol}/{binding.instance}" for binding in inviter.bindings}
            bindings = tuple(binding for binding in each.bindings if binding in here)
            bearers = tuple(bearer for bearer in each.bearers if bearer.id52 in peers)
            if bindings and not all(bearer.removed for bearer in bearers):
                self.plan.invitations.append(
                    msgspec.structs.replace(each, identity=name, bindings=bindings, bearers=bearers)
                )
        self.plan.problems += [
            f"open invitations of {name} that are not restored, and cannot be redeemed here: {count}. "
            "Make new ones: fastn-p2p invite"
            for name, count in open_ones.items()
            if count
        ]

    def _substitute(self, name: str, new_name: str) -> None:
        if name != new_name:
            self._substitutes[name] = (new_name,)


def _identities_here(context: GatewayContext) -> dict[str, str]:
    """Return the ID52 of each identity of this home; an empty text for a damaged one."""
    found: dict[str, str] = {}
    for name in context.store.names():
        try:
            found[name] = context.store.identity(name).id52
        except IdentityNotFound:
            continue  # of an interrupted command; it has no identity.json
        except P2PError:
            found[name] = ""
    return found


async def _groups_here(context: GatewayContext) -> dict[str, frozenset[str]]:
    """Return the members of each group, as ID52s."""
    groups = (await context.network.request(GetGroups(), GroupList)).groups
    peers = await context.peers_by_name() if groups else {}
    return {group.name: frozenset(_id52s(group.members, peers)) for group in groups}


def _id52s(members: Iterable[str], peers: Mapping[str, PeerInfo]) -> Iterable[str]:
    for member in members:
        yield peers[member].id52 if member in peers else PublicKey(member).id52
