"""One binding in this process: a protocol's instance, its access list and its state."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext, Protocol, effective_access
from fastn_p2p_client.serving.binding import ServedBinding
from fastn_p2p_client.serving.protocol_lifecycle import (
    MAX_REASON,
    ProtocolLifecycle,
    check,
    delete,
    describe,
    handlers_of,
    load_class,
)

from ..installed_protocols import load
from .crash_attribution import (
    AttributingRunner,
    Crash,
    CrashAttribution,
)
from .messages import BindingState

__all__ = ["HostedBinding", "check_binding", "check_class", "delete_binding", "describe_binding"]

log = logging.getLogger(__name__)


class HostedBinding:
    """Made stopped; ``start`` loads and activates it.

    Attributes:
        binding: what the dispatcher needs, once it is active.
        access: who may use it, once it is active; never empty then.
        state: ``starting``, ``serving`` or ``failed: …``.
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
        blame: CrashAttribution | None = None,
    ) -> None:
        self.identity = identity
        self.key = key
        self.protocol = protocol
        self.instance = instance
        self.binding: ServedBinding | None = None
        self.access: tuple[str, ...] = ()
        self.state = "starting"
        context = BindingContext(identity, key, protocol, instance, workspace, None, home)
        self._life = ProtocolLifecycle(
            context, partial(load, protocol, code), AttributingRunner(blame, (protocol, instance))
        )

    @property
    def name(self) -> tuple[str, str]:
        return self.protocol, self.instance

    def describe(self) -> BindingState:
        return BindingState(self.protocol, self.instance, self.access, self.state)

    def failed(self, error: P2PError) -> None:
        self._failed(str(error))

    def exclude_after_crashes(self, deaths: list[Crash]) -> None:
        """It is not started, since it has ended the processes before this one."""
        last = deaths[-1]
        self._failed(
            f"it has ended the identity's process {len(deaths)} times, the last time in {last.place} ({last.ending}); "
            f"`fastn-p2p protocol start {self.identity} {self.protocol} {self.instance}` tries it again"
        )

    def _failed(self, reason: str) -> None:
        self.state = f"failed: {reason}"[:MAX_REASON]
        log.error("%s (%s) of %s is not served: %s", self.protocol, self.instance, self.identity, reason)

    async def start(self, config: bytes, allow: tuple[str, ...]) -> ServedBinding:
        """Load the protocol, check its config and activate it. Raises like ``ProtocolLifecycle.start``."""
        requests, streams = await self._life.start(config)
        self.access = effective_access(self._life.code, allow)
        self.binding = ServedBinding(self.identity, self.key, self.protocol, self.instance, requests, streams)
        return self.binding

    async def reload(self, config: bytes, allow: tuple[str, ...]) -> None:
        """Give the running instance a new config and access list. Raises like ``start``; then it has the old ones."""
        if self._life.code is not None:
            await self._life.reload(config)
            self.access = effective_access(self._life.code, allow)

    def is_replaced(self) -> bool:
        """Return whether its code is not what is installed now. Raises like ``ProtocolLifecycle.is_replaced``."""
        return self._life.is_replaced()

    async def stop(self) -> None:
        """Deactivate it. What its code raises ends up in the log."""
        self.binding = None
        await self._life.stop()


async def check_binding(context: BindingContext, config: bytes, where: str = "") -> None:
    """Whether the protocol would start with this config, as far as can be told without starting it.

    Raises:
        ProtocolNotInstalled, InvalidConfig, HandlerFailed: as ``HostedBinding.start``.
    """
    await check(context, config, partial(load, context.protocol, where))


async def delete_binding(context: BindingContext, config: bytes, where: str = "") -> None:
    """Run the protocol's ``on_delete``. Raises like ``check_binding``."""
    await delete(context, config, partial(load, context.protocol, where))


async def describe_binding(context: BindingContext, config: bytes, where: str = "") -> str | None:
    """Return what the protocol says about the data in the workspace. Raises like ``check_binding``."""
    return await describe(context, config, partial(load, context.protocol, where))


def check_class(context: BindingContext, where: str) -> type[Protocol]:
    """The protocol's class, if identities can be given it. ``context`` is that of no binding.

    Raises:
        ProtocolNotInstalled: as it says.
        HandlerFailed: it cannot be loaded, or nothing can be called with it.
    """
    cls = load_class(context, partial(load, context.protocol, where))
    code = cls.__new__(cls)  # handlers are bound methods: of an instance that was not made
    code.context = context
    handlers_of(context, code)
    return cls
