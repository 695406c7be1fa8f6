"""The iroh endpoint: bound once, under the transport key, on the port used last."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec
from iroh.iroh_ffi import (
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointBuilder,
    EndpointId,
    EndpointOptions,
    Incoming,
    IncomingAddr,
    IrohError,
    Preset,
    RelayMode,
)

from fastn_p2p_client.errors import PeerUnreachable

from ...runtime.specs import NetworkMode
from ..wire.messages import ALPN
from .iroh_patches import install
from .peer_limits import HANDSHAKES, PeerLimits, network_of

__all__ = ["EndpointAddress", "NetworkEndpoint"]

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT: Final = 10.0
_RETRY_ABOVE: Final = 64
"""Handshakes in progress above which an address must prove itself first: it is sent a QUIC Retry (RFC 9000, section
8.1.2), which costs us nothing to remember and a sender with a made-up address everything."""
_MAX_HANDSHAKES: Final = 512
"""Handshakes in progress above which further ones are refused."""


class EndpointAddress(msgspec.Struct, frozen=True):
    """Where an endpoint may be reached."""

    endpoint: bytes
    relays: tuple[str, ...]
    addresses: tuple[str, ...]


class _Local(Preset):
    """Loopback only, no relay, no discovery."""

    def __init__(self, port: int, families: tuple[str, ...]) -> None:
        self._port = port
        self._families = families

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.disabled())
        for host in self._families:
            builder.bind_addr(f"{host}:{self._port}")


class _Internet(Preset):
    """iroh's public relays and discovery."""

    def __init__(self, port: int, families: tuple[str, ...]) -> None:
        self._port = port
        self._families = families

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_n0()
        for host in self._families:
            builder.bind_addr(f"{host}:{self._port}")


_HOSTS: Final = {
    NetworkMode.LOCAL: ("127.0.0.1", "[::1]"),
    NetworkMode.INTERNET: ("0.0.0.0", "[::]"),  # noqa: S104
}


class NetworkEndpoint:
    """Dials and accepts; knows nothing of what is said over a connection."""

    def __init__(self, raw: Endpoint, mode: str) -> None:
        self._raw = raw
        self._mode = mode
        self._loop = asyncio.get_running_loop()
        self._limits = PeerLimits()
        self._handshakes = 0
        """In progress, of those that others have begun."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.id = bytes(raw.id().to_bytes())
        self.refused = 0
        self.retried = 0

    @classmethod
    async def bind(cls, secret: bytes, mode: str, port_file: Path) -> NetworkEndpoint:
        """Bind under ``secret`` (32 bytes), on the port in ``port_file`` where it is free, else on any.

        Raises:
            IrohError: no port could be bound.
        """
        install(asyncio.get_running_loop())
        preset = _Local if mode == NetworkMode.LOCAL else _Internet
        hosts = _HOSTS[mode]
        last: IrohError | None = None
        for port in (_remembered(port_file), _free_port(hosts[0])):
            for families in (hosts, hosts[:1]):
                if port == 0:
                    continue
                try:
                    options = EndpointOptions(preset=preset(port, families), secret_key=secret, alpns=[ALPN])
                    raw = await Endpoint.bind(options)
                except IrohError as error:
                    last = error
                    continue
                _remember(port_file, port)
                return cls(raw, mode)
        raise last or RuntimeError("no port to bind")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(2):
                await self._raw.close()
        except (TimeoutError, IrohError) as error:
            log.warning("the endpoint did not close cleanly: %s", error)

    def address(self) -> EndpointAddress:
        """Where others may reach this endpoint, as it knows at the moment."""
        current = self._raw.addr()
        relay = current.relay_url()
        addresses = [a for a in current.direct_addresses() if not _unspecified(a)]
        if self._mode == NetworkMode.LOCAL:
            addresses = [a for a in self._raw.bound_sockets() if not _unspecified(a)]
        return EndpointAddress(self.id, (relay,) if relay else (), tuple(sorted(addresses)))

    async def dial(self, address: EndpointAddress) -> Connection:
        """A connection to exactly this endpoint; QUIC has proved that it holds the endpoint's key.

        Raises:
            PeerUnreachable: with the reason.
        """
        try:
            target = EndpointAddr(
                EndpointId.from_bytes(address.endpoint),
                address.relays[0] if address.relays else None,
                list(address.addresses),
            )
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                return await self._raw.connect(target, ALPN)
        except TimeoutError:
            raise PeerUnreachable(peer=address.endpoint.hex()[:10], reason="no answer to the handshake") from None
        except IrohError as error:
            raise PeerUnreachable(peer=address.endpoint.hex()[:10], reason=_error_text(error)) from error

    def accept_into(self, on_connection: Callable[[Connection], object]) -> None:
        """Hand over every connection that others open, from now on."""
        self._spawn(self._accept(on_connection))

    async def _accept(self, on_connection: Callable[[Connection], object]) -> None:
        while True:
            try:
                incoming = await self._raw.accept_next()
            except IrohError as error:
                log.warning("accept: %s", error)
                continue
            if incoming is None:
                return
            self._spawn(self._admit(incoming, on_connection))

    async def _admit(self, incoming: Incoming, on_connection: Callable[[Connection], object]) -> None:
        try:
            if not await self._may_try(incoming):
                return
            self._handshakes += 1
            try:
                async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                    connection = await (await incoming.accept()).connect()
            finally:
                self._handshakes -= 1
        except (IrohError, TimeoutError) as error:
            log.info("handshake failed: %s", error)
            return
        on_connection(connection)

    async def _may_try(self, incoming: Incoming) -> bool:
        """Return whether the handshake may begin; if not, the other side has been told.

        Addresses that were proved by a Retry have buckets of their own: whoever makes up the addresses of others takes
        none of their tokens.
        """
        address = await incoming.remote_addr()
        endpoint, network = b"", ""
        proved = await incoming.remote_addr_validated()
        if isinstance(address, IncomingAddr.RELAY):
            endpoint, proved = bytes(address.endpoint_id.to_bytes()), True
        elif isinstance(address, IncomingAddr.IP):
            network = network_of(address.addr) + (" proved" if proved else "")
        limited = self._limits.take(HANDSHAKES, endpoint, network, self._loop.time()) is not None
        if not proved and (limited or self._handshakes >= _RETRY_ABOVE):
            self.retried += 1
            await incoming.retry()
            return False
        if limited or self._handshakes >= _MAX_HANDSHAKES:
            self.refused += 1
            await incoming.refuse()
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _error_text(error: IrohError) -> str:
    return error.message().splitlines()[0][:200]


def _unspecified(address: str) -> bool:
    return address.startswith(("0.0.0.0:", "[::]:"))


def _remembered(port_file: Path) -> int:
    try:
        port = int(port_file.read_text())
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def _remember(port_file: Path, port: int) -> None:
    try:
        port_file.write_text(f"{port}\n")
    except OSError as error:
        log.warning("cannot remember the UDP port in %s: %s", port_file, error)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
