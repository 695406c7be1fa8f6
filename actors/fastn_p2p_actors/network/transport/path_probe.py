"""Path probe: finds out whether an endpoint answers over some addresses or relays, whatever its connections do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from iroh.iroh_ffi import (
    Endpoint,
    EndpointAddr,
    EndpointBuilder,
    EndpointId,
    EndpointOptions,
    IrohError,
    Preset,
    RelayMap,
    RelayMode,
)

from .iroh_errors import is_unsupported_protocol

log = logging.getLogger(__name__)

_ALPN: Final = b"fastn-p2p/probe"
"""Protocol that no daemon speaks: its refusal is an answer, and costs the peer daemon no connection."""
_CLOSE_AFTER: Final = 30.0
"""Seconds after the last probe at which its endpoint is closed."""


class _ProbePreset(Preset):
    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.custom(RelayMap.from_urls([])))
        for host in self._hosts:
            builder.bind_addr(f"{host}:0")


class PathProbe:
    """Probe of paths of one kind: direct addresses, or relays.

    Problem: iroh sends whatever an endpoint sends to a peer over the path that it has selected, also the handshake of
    another connection, until that path has been silent for 15 seconds. So the endpoint itself cannot find out whether
    another path works.

    Idea: another endpoint, with a key of its own, which has no connection with the peer. It is bound when it is first
    needed, which takes 20 ms, and closed when it has not been needed for a while. Each kind of paths needs its own,
    because iroh tries every address that it knows, and an answer that is lost on one path hides the other.

    Args:
        hosts: local addresses to bind. A probe of relays needs none but loopback.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts
        self._loop = asyncio.get_running_loop()
        self._binding: asyncio.Task[Endpoint] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0

    async def answers(self, endpoint: bytes, relay: str | None, addresses: Sequence[str]) -> bool:
        """Return whether the endpoint answers over the addresses or the relay. Cancel it when it takes too long."""
        if self._timer is not None:
            self._timer.cancel()
        self._running += 1
        try:
            if self._binding is None or (self._binding.done() and self._binding.exception() is not None):
                self._binding = self._loop.create_task(self._bind())
            raw = await asyncio.shield(self._binding)
            await raw.connect(EndpointAddr(EndpointId.from_bytes(endpoint), relay, list(addresses)), _ALPN)
        except IrohError as error:
            return is_unsupported_protocol(error)
        finally:
            self._running -= 1
            if not self._running:
                self._timer = self._loop.call_later(_CLOSE_AFTER, self._close_soon)
        return True

    async def _bind(self) -> Endpoint:
        try:
            return await Endpoint.bind(EndpointOptions(preset=_ProbePreset(self._hosts), alpns=[]))
        except IrohError:  # the machine has no IPv6
            return await Endpoint.bind(EndpointOptions(preset=_ProbePreset(self._hosts[:1]), alpns=[]))

    def _close_soon(self) -> None:
        self._closing = self._loop.create_task(self.close())

    async def close(self) -> None:
        """Close the endpoint. The next probe binds another one."""
        if self._timer is not None:
            self._timer.cancel()
        binding, self._binding = self._binding, None
        if binding is None:
            return
        try:
            async with asyncio.timeout(2):
                await (await binding).close()
        except (TimeoutError, IrohError) as error:
            log.info("a probe did not close cleanly: %s", error)
