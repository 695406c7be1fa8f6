"""Protocols of the identities of a daemon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..control_client import ControlClient
from ..ipc import messages as m
from ..limits import DEFAULT_INSTANCE
from ..worker_token import WorkerToken

_LIST_TIMEOUT = 120.0
"""Seconds in which the daemon loads every installed protocol."""


def _payload(config: Any) -> bytes:
    """Return a config as the payload of a request. Bytes are JSON already."""
    if config is None or isinstance(config, bytes):
        return config or b""
    return msgspec.json.encode(config)


class ProtocolAdmin:
    """Protocols of the daemon that a client is connected to, and their bindings: ``Client.protocols``.

    A config is a dataclass, a msgspec Struct, JSON-like values, or bytes that are JSON. An entry of an access list is
    ``"everyone"``, ``"peers"``, ``"group:NAME"``, a petname or an ID52. ``identity``, ``protocol`` and ``instance`` are
    a binding.
    """

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def list(self) -> Sequence[m.ProtocolInfo]:
        """Return the protocols that are installed where the daemon runs."""
        return (await self._client.control(m.ListProtocols(), timeout=_LIST_TIMEOUT)).protocols

    async def add(
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
        workers: bool = False,
        claims: str = "",
    ) -> None:
        """Add a protocol to an identity.

        Args:
            config: None for the protocol's defaults.
            allow: access list; empty leaves it to the protocol.
            program: a program serves it: the daemon keeps config and workspace.
            granted: permissions that the protocol needs, as ``PermissionsNeeded`` names them.
            added: further permissions, for instance ``"read /srv/photos"``.
            workers: workers serve it, through the NATS server that ``config`` names: ``{"url": "nats://HOST:PORT"}``.
            claims: URL of the store in which its retried calls are claimed, if the daemon hosts it: docs/claims.md.

        Raises:
            BindingExists: the identity has it already.
            InvalidConfig: the protocol rejects the config.
            PermissionsNeeded: it needs permissions that are not in ``granted``.
            ProtocolNotInstalled: it is not installed where the daemon runs.
        """
        message = m.AddProtocol(
            identity, protocol, instance, tuple(allow), program, tuple(granted), tuple(added), workers, claims
        )
        await self._client.control(message, _payload(config))

    async def set(
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
        claims: str | None = None,
    ) -> str:
        """Change config, access list or permissions of a binding, also while it serves.

        Args:
            config: the whole new config; None keeps the present one.
            allow: the new access list; empty leaves it to the protocol, None keeps the present one.
            granted, added: further permissions, as in ``add``.
            reset_added: take back the permissions that were given with ``added`` before.
            claims: URL of the store of claims, as in ``add``; empty for none, None keeps the present one.

        Returns:
            The state of the binding, as ``BindingStatus.state``.

        Raises:
            BindingNotFound: the identity does not have it.
            InvalidConfig: the protocol rejects the config. Nothing has changed.
            PermissionsNeeded: the config needs permissions that are not in ``granted``.
        """
        access = None if allow is None else tuple(allow)
        message = m.SetProtocol(identity, protocol, instance, access, tuple(granted), tuple(added), reset_added, claims)
        return (await self._client.control(message, _payload(config))).state

    async def remove(
        self,
        identity: str,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        *,
        keep_data: bool = False,
        if_empty: bool = False,
    ) -> None:
        """Remove a protocol from an identity, with the files that it keeps. Does not ask.

        Args:
            keep_data: keep its files: the instance has them again when it is added again.
            if_empty: change nothing if files would be lost.

        Raises:
            BindingNotFound: the identity does not have it.
            WorkspaceNotEmpty: there are files, and ``if_empty`` is set.
        """
        await self._client.control(m.RemoveProtocol(identity, protocol, instance, keep_data, if_empty))

    async def check(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """Check the config of a binding on disk. Return its state. Raises InvalidConfig."""
        return (await self._client.control(m.CheckProtocol(identity, protocol, instance))).state

    async def reload(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """Apply the config of a binding on disk. Return its state. Raises InvalidConfig: it keeps the one it has."""
        return (await self._client.control(m.ReloadProtocol(identity, protocol, instance))).state

    async def start(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """Start a binding that was stopped or has failed. Return its state."""
        return (await self._client.control(m.StartProtocol(identity, protocol, instance))).state

    async def stop(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> str:
        """Stop a binding, also after restarts, until ``start``. Return its state."""
        return (await self._client.control(m.StopProtocol(identity, protocol, instance))).state

    async def create_worker_token(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> WorkerToken:
        """Make a token with which a worker on another machine serves a binding. ``str(token)`` is its text.

        Raises:
            BindingNotFound: the identity does not have it.
            NotForWorkers: the daemon serves it by itself, or does not listen for workers.
            Overloaded: the binding has 16 tokens.
        """
        reply = await self._client.control(m.ChangeWorkerTokens(identity, protocol, instance))
        return WorkerToken(identity, protocol, instance, reply.key, reply.fingerprint, reply.secret)

    async def revoke_worker_tokens(self, identity: str, protocol: str, instance: str = DEFAULT_INSTANCE) -> int:
        """Revoke all tokens of a binding: its workers are disconnected. Return how many there were."""
        return (await self._client.control(m.ChangeWorkerTokens(identity, protocol, instance, revoke=True))).revoked

    async def access(self, identity: str = "", peer: str = "") -> Sequence[m.BindingAccess]:
        """Return who may use each binding, and why.

        Args:
            identity: the only identity of interest; empty for all.
            peer: the only caller of interest: a petname or an ID52; empty for all that are admitted.
        """
        return (await self._client.control(m.GetAccess(identity, peer))).bindings
