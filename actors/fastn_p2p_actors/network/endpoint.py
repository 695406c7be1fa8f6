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

from ..settings import NetworkMode
from .iroh_binding import install
from .wire import ALPN

__all__ = ["Address", "NetworkEndpoint"]

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT: Final = 10.0
_ATTEMPTS_PER_SECOND: Final = 64.0
_ATTEMPTS_BURST: Final = 256.0
"""Handshakes that one IP address may start before it is refused, without any cryptography being done for it."""
_MAX_ADDRESSES_REMEMBERED: Final = 4096


class Address(msgspec.Struct, frozen=True):
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


class _Bucket:
    """Tokens of one remote address."""

    __slots__ = ("at", "tokens")

    def __init__(self, now: float) -> None:
        self.tokens = _ATTEMPTS_BURST
        self.at = now

    def take(self, now: float) -> bool:
        self.tokens = min(_ATTEMPTS_BURST, self.tokens + (now - self.at) * _ATTEMPTS_PER_SECOND)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class NetworkEndpoint:
    """Dials and accepts; knows nothing of what is said over a connection."""

    def __init__(self, raw: Endpoint, mode: str) -> None:
        self._raw = raw
        self._mode = mode
        self._loop = asyncio.get_running_loop()
        self._buckets: dict[str, _Bucket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.id = bytes(raw.id().to_bytes())
        self.refused = 0

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

    def address(self) -> Address:
        """Where others may reach this endpoint, as it knows at the moment."""
        current = self._raw.addr()
        relay = current.relay_url()
        addresses = [a for a in current.direct_addresses() if not _unspecified(a)]
        if self._mode == NetworkMode.LOCAL:
            addresses = [a for a in self._raw.bound_sockets() if not _unspecified(a)]
        return Address(self.id, (relay,) if relay else (), tuple(sorted(addresses)))

    async def dial(self, address: Address) -> Connection:
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
            raise PeerUnreachable(peer=address.endpoint.hex()[:10], reason=_words(error)) from error

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
            if not self._may_try(_source(await incoming.remote_addr())):
                self.refused += 1
                await incoming.refuse()
                return
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                connection = await (await incoming.accept()).connect()
        except (IrohError, TimeoutError) as error:
            log.info("handshake failed: %s", error)
            return
        on_connection(connection)

    def _may_try(self, host: str) -> bool:
        now = self._loop.time()
        bucket = self._buckets.get(host)
        if bucket is None:
            if len(self._buckets) >= _MAX_ADDRESSES_REMEMBERED:
                self._buckets.pop(next(iter(self._buckets)))
            bucket = self._buckets[host] = _Bucket(now)
        return bucket.take(now)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _source(address: IncomingAddr) -> str:
    """What one remote's attempts are counted under: its IP address, or all relays together."""
    return str(address.addr).rsplit(":", 1)[0] if isinstance(address, IncomingAddr.IP) else "relay"


def _words(error: IrohError) -> str:
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
