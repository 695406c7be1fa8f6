"""Blocking twins of the classes in ``fastn_p2p_client.admin``: the same methods, without ``await``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ..admin import group_admin, identity_admin, invitation_admin, peer_admin, protocol_admin
from ..event_loop_thread import run_blocking

AdminT = TypeVar("AdminT")
P = ParamSpec("P")
ResultT = TypeVar("ResultT")


class _BlockingTwin(Generic[AdminT]):
    def __init__(self, twin: AdminT) -> None:
        self._twin = twin


def _blocking(
    method: Callable[Concatenate[AdminT, P], Coroutine[Any, Any, ResultT]],
) -> Callable[Concatenate[_BlockingTwin[AdminT], P], ResultT]:
    """Return a method that waits for the result of ``method`` of the twin."""

    @functools.wraps(method)
    def wait(self: _BlockingTwin[AdminT], /, *args: P.args, **options: P.kwargs) -> ResultT:
        return run_blocking(method(self._twin, *args, **options))

    wait.__doc__ = f"As ``admin.{method.__qualname__}``."
    return wait


class IdentityAdmin(_BlockingTwin[identity_admin.IdentityAdmin]):
    """Blocking twin of ``admin.identity_admin.IdentityAdmin``."""

    create = _blocking(identity_admin.IdentityAdmin.create)
    list = _blocking(identity_admin.IdentityAdmin.list)
    get = _blocking(identity_admin.IdentityAdmin.get)
    set_online = _blocking(identity_admin.IdentityAdmin.set_online)
    set_listed = _blocking(identity_admin.IdentityAdmin.set_listed)
    set_idle = _blocking(identity_admin.IdentityAdmin.set_idle)
    set_limits = _blocking(identity_admin.IdentityAdmin.set_limits)
    ticket = _blocking(identity_admin.IdentityAdmin.ticket)
    revoke = _blocking(identity_admin.IdentityAdmin.revoke)
    delete = _blocking(identity_admin.IdentityAdmin.delete)


class ProtocolAdmin(_BlockingTwin[protocol_admin.ProtocolAdmin]):
    """Blocking twin of ``admin.protocol_admin.ProtocolAdmin``."""

    list = _blocking(protocol_admin.ProtocolAdmin.list)
    add = _blocking(protocol_admin.ProtocolAdmin.add)
    set = _blocking(protocol_admin.ProtocolAdmin.set)
    remove = _blocking(protocol_admin.ProtocolAdmin.remove)
    check = _blocking(protocol_admin.ProtocolAdmin.check)
    reload = _blocking(protocol_admin.ProtocolAdmin.reload)
    start = _blocking(protocol_admin.ProtocolAdmin.start)
    stop = _blocking(protocol_admin.ProtocolAdmin.stop)
    access = _blocking(protocol_admin.ProtocolAdmin.access)
    create_worker_token = _blocking(protocol_admin.ProtocolAdmin.create_worker_token)
    revoke_worker_tokens = _blocking(protocol_admin.ProtocolAdmin.revoke_worker_tokens)


class PeerAdmin(_BlockingTwin[peer_admin.PeerAdmin]):
    """Blocking twin of ``admin.peer_admin.PeerAdmin``."""

    add = _blocking(peer_admin.PeerAdmin.add)
    list = _blocking(peer_admin.PeerAdmin.list)
    get = _blocking(peer_admin.PeerAdmin.get)
    rename = _blocking(peer_admin.PeerAdmin.rename)
    remove = _blocking(peer_admin.PeerAdmin.remove)
    pending = _blocking(peer_admin.PeerAdmin.pending)
    accept = _blocking(peer_admin.PeerAdmin.accept)
    accept_successor = _blocking(peer_admin.PeerAdmin.accept_successor)
    block = _blocking(peer_admin.PeerAdmin.block)
    unblock = _blocking(peer_admin.PeerAdmin.unblock)
    blocked = _blocking(peer_admin.PeerAdmin.blocked)


class GroupAdmin(_BlockingTwin[group_admin.GroupAdmin]):
    """Blocking twin of ``admin.group_admin.GroupAdmin``."""

    create = _blocking(group_admin.GroupAdmin.create)
    list = _blocking(group_admin.GroupAdmin.list)
    add = _blocking(group_admin.GroupAdmin.add)
    remove = _blocking(group_admin.GroupAdmin.remove)
    delete = _blocking(group_admin.GroupAdmin.delete)


class InvitationAdmin(_BlockingTwin[invitation_admin.InvitationAdmin]):
    """Blocking twin of ``admin.invitation_admin.InvitationAdmin``."""

    create = _blocking(invitation_admin.InvitationAdmin.create)
    list = _blocking(invitation_admin.InvitationAdmin.list)
    revoke = _blocking(invitation_admin.InvitationAdmin.revoke)
