"""Permissions that the owner grants to bindings: with a command, or by restoring a backup."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastn_p2p_client.errors import InvalidConfig, P2PError
from fastn_p2p_client.permissions import Permissions

from ..identity.declared_permissions import declared_permissions, is_builtin_binding
from ..storage.identity_store import BindingFile
from ..storage.permission_store import PermissionFile
from .context import GatewayContext


def check_added(context: GatewayContext, protocol: str, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines as they are stored. Raises InvalidConfig if one is no permission, or gives away the keys."""
    try:
        added = Permissions.of(lines).lines()
    except ValueError as error:
        raise InvalidConfig(protocol=protocol, reason=str(error)) from None
    check_paths(context, protocol, added)
    return added


def check_paths(context: GatewayContext, protocol: str, needed: tuple[str, ...]) -> None:
    """Raise InvalidConfig if protocol code would get the daemon's keys. Without sandboxes it has them anyway."""
    if not context.is_confining:
        return
    home = Path(os.path.realpath(context.home.path))
    for line in needed:
        kind, _, text = line.partition(" ")
        if kind in ("read", "write"):
            place = Path(os.path.realpath(text))
            if place.is_relative_to(home / "vault") or (kind == "write" and home.is_relative_to(place)):
                reason = f"{text} contains the daemon's keys, or is among them. Choose another directory"
                raise InvalidConfig(protocol=protocol, reason=reason)


def restored_permissions(
    context: GatewayContext, identity: str, bindings: Iterable[BindingFile], saved: PermissionFile
) -> tuple[PermissionFile, list[str]]:
    """Return what restored bindings of an identity may do, and what is left out. It reads code from disk and blocks.

    A protocol of another package may do again what its owner has granted. A protocol that comes with the daemon may do
    what its config names, as when it is added.

    Args:
        context: the gateway's context.
        identity: name of the identity here.
        bindings: its restored bindings.
        saved: permissions in the backup.
    """
    granted: dict[str, tuple[str, ...]] = {}
    added: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for binding in bindings:
        if binding.program:
            continue
        name = f"{binding.protocol}/{binding.instance}"
        lines = saved.granted.get(name, ())
        if is_builtin_binding(binding):
            try:
                lines = declared_permissions(binding.protocol, binding.code, bytes(binding.config))
            except P2PError as error:
                lines = ()
                problems.append(f"{name} of {identity} gets no permissions: {error}")
        for kept, source in ((granted, lines), (added, saved.added.get(name, ()))):
            kept[name] = tuple(line for line in source if _is_allowed(context, identity, name, line, problems))
    return PermissionFile(complete=True, granted=granted, added=added), problems


def _is_allowed(context: GatewayContext, identity: str, binding: str, line: str, problems: list[str]) -> bool:
    try:
        check_paths(context, binding, (line,))
    except InvalidConfig as error:
        problems.append(f"{binding} of {identity} may not {line} here: {error.reason}")
        return False
    return True
