"""Hosted binding: a protocol instance, its access list and its state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastn_p2p_client.errors import P2PError, PermissionsNeeded
from fastn_p2p_client.home import Home
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.permissions import missing
from fastn_p2p_client.protocol import STOPPED, BindingContext, Protocol, effective_access
from fastn_p2p_client.serving.binding import ServedBinding
from fastn_p2p_client.serving.hooks import MAX_REASON
from fastn_p2p_client.serving.protocol_lifecycle import (
    ProtocolLifecycle,
    check,
    delete,
    describe,
    handlers_of,
    load_class,
)

from ..installed_protocols import load
from .crash_attribution import AttributingRunner, Crash, CrashAttribution
from .declared_permissions import check_claims, declared_permissions
from .messages import BindingState

log = logging.getLogger(__name__)


class HostedBinding:
    """Binding in this process. It is stopped at first; ``start`` loads and activates it.

    Attributes:
        binding: the binding for the dispatcher, once it is active; else None.
        access: the effective access list, once it is active; never empty then.
        keeps_state: whether it keeps what peers send, once it is active.
        claims_calls: whether it claims retried calls in a store that all daemons of the identity share.
        is_stateless: whether any daemon of the identity may serve any request, once it is active.
        state: ``starting``, ``serving`` or ``failed: …``. With a ``problem``, ``describe`` says ``degraded: …``.
        waiting: how much waits for the owner, as the protocol says.
        stays_awake: whether the protocol works without requests at the moment, as it says.
        problem: reason for which the protocol does not work although it serves, as it says; else empty.
        on_waiting: called when ``waiting`` or ``problem`` has changed while the binding is active.
    """

    def __init__(
        self,
        identity: str,
        key: PublicKey,
        protocol: str,
        instance: str,
        workspace: Path,
        code: str = "",
        home: Home | None = None,
        attribution: CrashAttribution | None = None,
    ) -> None:
        self.identity = identity
        self.key = key
        self.protocol = protocol
        self.instance = instance
        self.binding: ServedBinding | None = None
        self.access: tuple[str, ...] = ()
        self.keeps_state = self.claims_calls = self.is_stateless = False
        self._claims = ""
        self.state = "starting"
        self.waiting = 0
        self.problem = ""
        self.stays_awake = False
        self.on_waiting: Callable[[], object] = lambda: None
        context = BindingContext(
            identity,
            key,
            protocol,
            instance,
            workspace,
            None,
            home,
            self._set_waiting,
            self._set_awake,
            self._set_problem,
        )
        self._runner = AttributingRunner(attribution, (protocol, instance))
        self._tasks: set[asyncio.Task[None]] = set()
        self._declare = partial(declared_permissions, protocol, code)
        self._life = ProtocolLifecycle(context, partial(load, protocol, code), self._runner)

    @property
    def name(self) -> tuple[str, str]:
        return self.protocol, self.instance

    def _set_waiting(self, count: int) -> None:
        if count != self.waiting:
            self.waiting = count
            if self.binding is not None:
                self.on_waiting()

    def _set_problem(self, problem: str) -> None:
        self.problem = problem[:MAX_REASON]
        if self.binding is not None:
            self.on_waiting()

    def _set_awake(self, awake: bool) -> None:
        self.stays_awake = awake

    def describe(self) -> BindingState:
        state = f"degraded: {self.problem}" if self.problem and self.state == "serving" else self.state
        return BindingState(self.protocol, self.instance, self.access, state)

    def failed(self, error: P2PError) -> None:
        if isinstance(error, PermissionsNeeded):
            lines = error.permissions.replace("\n", "; ")
            binding = f"{self.identity} --protocol {self.protocol} --instance {self.instance}"
            self._failed(
                f"it needs permissions that were not granted: {lines}. "
                f"If you trust it: fastn-p2p set-protocol {binding} --yes"
            )
        else:
            self._failed(str(error))

    def exclude_after_crashes(self, crashes: list[Crash]) -> None:
        """Leave the binding stopped, because it crashed the processes before this one."""
        last = crashes[-1]
        self._failed(
            f"it crashed the identity's process {len(crashes)} times, the last time in {last.place} ({last.ending}). "
            f"Start it again: fastn-p2p protocol start {self.identity} {self.protocol} {self.instance}"
        )

    def _failed(self, reason: str) -> None:
        self.state = f"failed: {reason}"[:MAX_REASON]
        log.error("%s (%s) of %s is not served: %s", self.protocol, self.instance, self.identity, reason)

    async def start(
        self, config: bytes, allow: tuple[str, ...], granted: tuple[str, ...] | None = None, claims: str = ""
    ) -> ServedBinding:
        """Load the protocol, check its config and activate it.

        Args:
            config: JSON.
            allow: access list of the owner; empty if the protocol decides.
            granted: permissions of the binding, as lines; None in a process without a sandbox.
            claims: URL of the store in which retried calls are claimed; empty for none.

        Raises:
            ProtocolNotInstalled: no installed package has the protocol.
            InvalidConfig: the protocol rejects the config, or the store of claims cannot be used.
            PermissionsNeeded: the protocol declares permissions that were not granted.
            HandlerFailed: the protocol's code failed.
        """
        if granted is not None:
            self._check_permitted(config, granted)
        await asyncio.to_thread(check_claims, self.protocol, claims)
        handlers = await self._life.start(config)
        self.access = effective_access(self._life.code, allow)
        self.binding = ServedBinding(
            self.identity, self.key, self.protocol, self.instance, handlers.requests, handlers.streams
        )
        self._claims = claims
        self.binding.open_claims(claims)
        self._read_declarations()
        self.binding.on_home = self._on_home
        return self.binding

    def _on_home(self, daemon: str) -> None:
        task = asyncio.get_running_loop().create_task(self._life.set_home(daemon))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check_permitted(self, config: bytes, granted: tuple[str, ...]) -> None:
        """Raise PermissionsNeeded if the protocol declares more for its config. Other errors are for ``start``.

        So a binding does not serve that would fail at its first file. It was added before there were permissions, its
        config was changed by hand, or its package was replaced.
        """
        try:
            declared = self._runner.step("its permissions", lambda: self._declare(config))
        except BaseException:
            return
        lacking = missing(declared, granted)
        if lacking:
            raise PermissionsNeeded(protocol=self.protocol, permissions="\n".join(lacking))

    async def reload(self, config: bytes, allow: tuple[str, ...], claims: str = "") -> None:
        """Give the running protocol a new config, access list and claims. If that fails, it keeps the old ones.

        Of calls that were claimed in the old store and still run, nothing more is noted there.

        Raises:
            InvalidConfig: the protocol rejects the config, or the store of claims cannot be used.
            HandlerFailed: the protocol's code failed.
        """
        if self._life.code is not None:
            is_new = claims != self._claims
            if is_new:
                await asyncio.to_thread(check_claims, self.protocol, claims)
            await self._life.reload(config)
            if self.binding is not None and is_new:
                self._claims = claims
                await self.binding.close_claims()
                self.binding.open_claims(claims)
            self.access = effective_access(self._life.code, allow)
            self._read_declarations()

    def _read_declarations(self) -> None:
        life = self._life
        self.keeps_state, self.claims_calls, self.is_stateless = (
            life.keeps_state(), life.claims_calls() or bool(self._claims), life.is_stateless()
        )  # fmt: skip

    def is_replaced(self) -> bool:
        """Return whether the installed code is another one than the running code.

        Raises:
            ProtocolNotInstalled: no installed package has the protocol any more.
            HandlerFailed: the installed code cannot be loaded.
        """
        return self._life.is_replaced()

    async def stop(self, reason: str = STOPPED) -> None:
        """Deactivate the binding. Errors of its code are logged.

        Args:
            reason: ``Protocol.deactivation_reason``.
        """
        binding, self.binding = self.binding, None
        self.stays_awake = False
        await self._life.stop(reason)
        if binding is not None:
            await binding.close_claims()


async def check_binding(context: BindingContext, config: bytes, where: str = "") -> None:
    """Check that the protocol would start with this config, as far as that is known without starting it.

    Args:
        context: the binding.
        config: its config as JSON.
        where: value of the protocol's entry point when the binding was added.

    Raises:
        ProtocolNotInstalled: no installed package has the protocol.
        InvalidConfig: the protocol rejects the config.
        HandlerFailed: the protocol's code failed.
    """
    await check(context, config, partial(load, context.protocol, where))


async def delete_binding(context: BindingContext, config: bytes, where: str = "") -> None:
    """Run the protocol's ``on_delete``. Raises as ``check_binding``."""
    await delete(context, config, partial(load, context.protocol, where))


async def describe_binding(context: BindingContext, config: bytes, where: str = "") -> str | None:
    """Return the protocol's description of the data in the workspace. Raises as ``check_binding``."""
    return await describe(context, config, partial(load, context.protocol, where))


def check_class(context: BindingContext, where: str) -> type[Protocol]:
    """Return the protocol's class, after checking that identities can use it.

    Args:
        context: a context without a binding.
        where: value of the protocol's entry point.

    Raises:
        ProtocolNotInstalled: no installed package has the protocol.
        HandlerFailed: it cannot be loaded, or has no handlers.
    """
    cls = load_class(context, partial(load, context.protocol, where))
    code = cls.__new__(cls)  # handlers are bound methods, so an instance is needed; ``__init__`` must not run
    code.context = context
    handlers_of(context, code)
    return cls
