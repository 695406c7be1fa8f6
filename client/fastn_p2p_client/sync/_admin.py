"""Blocking twins of the classes in ``fastn_p2p_client.admin``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..admin import group_admin, identity_admin, invitation_admin, peer_admin, protocol_admin
from ..admin.invitation_admin import WEEK
from ..event_loop_thread import run_blocking
from ..ipc import messages as m
from ..limits import DEFAULT_INSTANCE


class IdentityAdmin:
    """Blocking twin of ``admin.identity_admin.IdentityAdmin``."""

    def __init__(self, twin: identity_admin.IdentityAdmin) -> None:
        self._twin = twin

    def create(self, name: str, *, listed: bool = True) -> m.IdentityInfo:
        """As ``admin.identity_admin.IdentityAdmin.create``."""
        return run_blocking(self._twin.create(name, listed=listed))

    def list(self) -> Sequence[m.IdentityInfo]:
        """As ``admin.identity_admin.IdentityAdmin.list``."""
        return run_blocking(self._twin.list())

    def get(self, name: str) -> m.IdentityInfo:
        """As ``admin.identity_admin.IdentityAdmin.get``."""
        return run_blocking(self._twin.get(name))

    def set_online(self, name: str, online: bool = True) -> m.IdentityInfo:
        """As ``admin.identity_admin.IdentityAdmin.set_online``."""
        return run_blocking(self._twin.set_online(name, online))

    def set_listed(self, name: str, listed: bool) -> m.IdentityInfo:
        """As ``admin.identity_admin.IdentityAdmin.set_listed``."""
        return run_blocking(self._twin.set_listed(name, listed))

    def set_limits(
        self,
        name: str,
        *,
        memory: int | None = None,
        processes: int | None = None,
        file_size: int | None = None,
        open_files: int | None = None,
    ) -> m.IdentityInfo:
        """As ``admin.identity_admin.IdentityAdmin.set_limits``."""
        return run_blocking(
            self._twin.set_limits(name, memory=memory, processes=processes, file_size=file_size, open_files=open_files)
        )

    def ticket(self, name: str = "") -> m.TicketText:
        """As ``admin.identity_admin.IdentityAdmin.ticket``."""
        return run_blocking(self._twin.ticket(name))

    def revoke(self, name: str, successor: str = "") -> m.IdentityInfo:
        """As ``admin.identity_admin.IdentityAdmin.revoke``."""
        return run_blocking(self._twin.revoke(name, successor))

    def delete(self, name: str) -> None:
        """As ``admin.identity_admin.IdentityAdmin.delete``."""
        run_blocking(self._twin.delete(name))


class ProtocolAdmin:
    """Blocking twin of ``admin.protocol_admin.ProtocolAdmin``."""

    def __init__(self, twin: protocol_admin.ProtocolAdmin) -> None:
        self._twin = twin

    def list(self) -> Sequence[m.ProtocolInfo]:
        """As ``admin.protocol_admin.ProtocolAdmin.list``."""
        return run_blocking(self._twin.list())

    def add(
        self,
        identity: str,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        *,
        config: Any = None,
        allow: Iterable[str] = (),
        program: bool = False,
        granted: Iterable[str] = (),
        added: Iterable[str] = (),
    ) -> None:
        """As ``admin.protocol_admin.ProtocolAdmin.add``."""
        run_blocking(
            self._twin.add(
                identity, protocol, instance, config=config, allow=allow, program=program, granted=granted, added=added
            )
        )

    def set(
        self,
        identity: str,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        *,
        config: Any = None,
        allow: Iterable[str] | None = None,
        granted: Iterable[str] = (),
        added: Iterable[str] = (),
        reset_added: bool = False,
    ) -> str:
        """As ``admin.protocol_admin.ProtocolAdmin.set``."""
        return run_blocking(
            self._twin.set(
                identity,
                protocol,
                instance,
                config=config,
                allow=allow,
                granted=granted,
                added=added,
                reset_added=reset_added,
            )
        )

    def remove(
        self,
        identity: str,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        *,
        keep_data: bool = False,
        if_empty: bool = False,
    ) -> None:
        """As ``admin.protocol_admin.ProtocolAdmin.remove``."""
        run_blocking(self._twin.remove(identity, protocol, instance, keep_data=keep_data, if_empty=if_empty))

    def check(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """As ``admin.protocol_admin.ProtocolAdmin.check``."""
        return run_blocking(self._twin.check(identity, protocol, instance))

    def reload(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """As ``admin.protocol_admin.ProtocolAdmin.reload``."""
        return run_blocking(self._twin.reload(identity, protocol, instance))

    def start(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """As ``admin.protocol_admin.ProtocolAdmin.start``."""
        return run_blocking(self._twin.start(identity, protocol, instance))

    def stop(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """As ``admin.protocol_admin.ProtocolAdmin.stop``."""
        return run_blocking(self._twin.stop(identity, protocol, instance))

    def access(self, identity: str = "", peer: str = "") -> Sequence[m.BindingAccess]:
        """As ``admin.protocol_admin.ProtocolAdmin.access``."""
        return run_blocking(self._twin.access(identity, peer))


class PeerAdmin:
    """Blocking twin of ``admin.peer_admin.PeerAdmin``."""

    def __init__(self, twin: peer_admin.PeerAdmin) -> None:
        self._twin = twin

    def add(self, peer: str, name: str, *, identity: str = "") -> m.PeerReply:
        """As ``admin.peer_admin.PeerAdmin.add``."""
        return run_blocking(self._twin.add(peer, name, identity=identity))

    def list(self) -> Sequence[m.PeerInfo]:
        """As ``admin.peer_admin.PeerAdmin.list``."""
        return run_blocking(self._twin.list())

    def get(self, peer: str) -> m.PeerInfo:
        """As ``admin.peer_admin.PeerAdmin.get``."""
        return run_blocking(self._twin.get(peer))

    def rename(self, peer: str, new: str) -> m.PeerInfo:
        """As ``admin.peer_admin.PeerAdmin.rename``."""
        return run_blocking(self._twin.rename(peer, new))

    def remove(self, name: str) -> None:
        """As ``admin.peer_admin.PeerAdmin.remove``."""
        run_blocking(self._twin.remove(name))

    def pending(self) -> Sequence[m.PendingPeer]:
        """As ``admin.peer_admin.PeerAdmin.pending``."""
        return run_blocking(self._twin.pending())

    def accept(self, peer: str, name: str = "", *, allow: Iterable[str] = ()) -> m.PeerInfo:
        """As ``admin.peer_admin.PeerAdmin.accept``."""
        return run_blocking(self._twin.accept(peer, name, allow=allow))

    def accept_successor(self, peer: str) -> m.PeerReply:
        """As ``admin.peer_admin.PeerAdmin.accept_successor``."""
        return run_blocking(self._twin.accept_successor(peer))

    def block(self, peer: str) -> None:
        """As ``admin.peer_admin.PeerAdmin.block``."""
        run_blocking(self._twin.block(peer))

    def unblock(self, peer: str) -> None:
        """As ``admin.peer_admin.PeerAdmin.unblock``."""
        run_blocking(self._twin.unblock(peer))

    def blocked(self) -> Sequence[m.BlockedInfo]:
        """As ``admin.peer_admin.PeerAdmin.blocked``."""
        return run_blocking(self._twin.blocked())


class GroupAdmin:
    """Blocking twin of ``admin.group_admin.GroupAdmin``."""

    def __init__(self, twin: group_admin.GroupAdmin) -> None:
        self._twin = twin

    def create(self, name: str, *members: str) -> None:
        """As ``admin.group_admin.GroupAdmin.create``."""
        run_blocking(self._twin.create(name, *members))

    def list(self) -> Sequence[m.GroupInfo]:
        """As ``admin.group_admin.GroupAdmin.list``."""
        return run_blocking(self._twin.list())

    def add(self, name: str, *members: str) -> None:
        """As ``admin.group_admin.GroupAdmin.add``."""
        run_blocking(self._twin.add(name, *members))

    def remove(self, name: str, *members: str) -> None:
        """As ``admin.group_admin.GroupAdmin.remove``."""
        run_blocking(self._twin.remove(name, *members))

    def delete(self, name: str) -> None:
        """As ``admin.group_admin.GroupAdmin.delete``."""
        run_blocking(self._twin.delete(name))


class InvitationAdmin:
    """Blocking twin of ``admin.invitation_admin.InvitationAdmin``."""

    def __init__(self, twin: invitation_admin.InvitationAdmin) -> None:
        self._twin = twin

    def create(
        self, bindings: Iterable[str], *, identity: str = "", uses: int = 1, seconds: int = WEEK, name: str = ""
    ) -> m.InvitationText:
        """As ``admin.invitation_admin.InvitationAdmin.create``."""
        return run_blocking(self._twin.create(bindings, identity=identity, uses=uses, seconds=seconds, name=name))

    def list(self, identity: str = "") -> Sequence[m.InvitationInfo]:
        """As ``admin.invitation_admin.InvitationAdmin.list``."""
        return run_blocking(self._twin.list(identity))

    def revoke(self, id: str, *, access: bool = False) -> m.InvitationInfo:
        """As ``admin.invitation_admin.InvitationAdmin.revoke``."""
        return run_blocking(self._twin.revoke(id, access=access))
