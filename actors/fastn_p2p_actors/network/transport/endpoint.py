"""The iroh endpoint: bound once, under the transport key, on the port that was used last.

iroh itself chooses the home relay among those of the settings, and punches holes through NATs.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from iroh.iroh_ffi import (
    AddrChangeCallback,
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointBuilder,
    EndpointId,
    EndpointOptions,
    HomeRelayCallback,
    Incoming,
    IncomingAddr,
    IrohError,
    Preset,
    RelayConfig,
    RelayMap,
    RelayMode,
    WatchHandle,
)

from fastn_p2p_client.errors import PeerUnreachable

from ...daemon_settings.sections import NetworkMode
from ..wire.messages import ALPN, CLOSE_PROTOCOL_ERROR, CLOSE_SHUTDOWN
from .address_order import is_loopback, order_addresses
from .iroh_errors import dial_error
from .iroh_patches import install
from .path_probe import PathProbe
from .peer_limits import HANDSHAKES, PeerLimits, network_of
from .penalties import Penalties

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds that a QUIC handshake may take, in either direction."""
_RETRY_ABOVE: Final = 64
"""Handshakes in progress above which an address must prove itself by a QUIC Retry (RFC 9000, section 8.1.2). A Retry
takes no memory here, and a sender with a forged address never receives it."""
_MAX_HANDSHAKES: Final = 512
"""Handshakes in progress above which further ones are refused."""
_ROUND_TRIP: Final = 0.2
"""Seconds of a handshake in progress after which another one from the same address must prove the address."""
_DISCOVERY_PORT: Final = 7842
"""UDP port of a relay's QUIC address discovery: the one that iroh sets for relays that are given at the start."""


class EndpointAddress(msgspec.Struct, frozen=True):
    """Address of an iroh endpoint: its public key (32 bytes), URLs of its relays, and ``ip:port`` addresses."""

    endpoint: bytes
    relays: tuple[str, ...]
    addresses: tuple[str, ...]


_WAIT_SECONDS: Final = 0.02
"""Seconds between two looks whether a handshake still has to wait."""
_MOST_WAITS: Final = 100
"""Looks after which a handshake begins in any case: 2 seconds, while a dialling daemon waits for 10."""


class _Preset(Preset):
    """Settings of the endpoint: no discovery service of iroh's, and our own relays.

    The map of relays is a custom one also when it is empty: iroh ignores relays that are added later to a disabled map.

    Args:
        relays: URLs of the relays.
        hosts: local addresses to bind, all at the same port.
    """

    def __init__(self, relays: RelayMap, port: int, hosts: tuple[str, ...]) -> None:
        self._relays = relays
        self._port = port
        self._hosts = hosts

    def apply(self, builder: EndpointBuilder) -> None:
        builder.apply_minimal()
        builder.relay_mode(RelayMode.custom(self._relays))
        for host in self._hosts:
            builder.bind_addr(f"{host}:{self._port}")


_HOSTS: Final = {
    NetworkMode.LOCAL: ("127.0.0.1", "[::1]"),
    NetworkMode.LAN: ("0.0.0.0", "[::]"),  # noqa: S104
    NetworkMode.INTERNET: ("0.0.0.0", "[::]"),  # noqa: S104
}


class _AddressCallback(AddrChangeCallback):
    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change

    async def on_change(self, addr: EndpointAddr) -> None:
        self._on_change()


class _RelayCallback(HomeRelayCallback):
    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change

    async def on_change(self, relay_urls: list[str]) -> None:
        self._on_change()


class NetworkEndpoint:
    """Opens and accepts QUIC connections. Messages are the connection's affair.

    Attributes:
        id: public key of the endpoint, 32 bytes.
        outside: addresses outside of a NAT that were set by ``set_outside``.
        penalties: penalties of strangers whose connections were closed for abuse.
        refused: number of incoming handshakes that were refused or dropped.
        retried: number of incoming handshakes that were answered by a QUIC Retry.
    """

    def __init__(self, raw: Endpoint, mode: str, relays: frozenset[str], alpn: bytes = ALPN) -> None:
        self._raw = raw
        self._alpn = alpn
        self._mode = mode
        self._relays = relays
        """URLs of its relays, in iroh's spelling."""
        self._loop = asyncio.get_running_loop()
        self._limits = PeerLimits()
        self._has_to_wait: Callable[[], bool] = lambda: False
        self._is_blocked: Callable[[bytes], bool] = lambda _: False
        self._is_known: Callable[[bytes], bool] = lambda _: False
        self.penalties = Penalties()
        self._handshakes = 0
        """Number of incoming handshakes in progress."""
        self._sources: dict[str, list[float]] = {}
        """When the handshakes in progress began, by the IP address and port from which each came."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: list[WatchHandle] = []
        self._direct_probe = PathProbe(_HOSTS[mode])
        self._relay_probe = PathProbe(_HOSTS[NetworkMode.LOCAL][:1])
        self.outside: frozenset[str] = frozenset()
        self.id = bytes(raw.id().to_bytes())
        self.refused = 0
        self.retried = 0

    @classmethod
    async def bind(
        cls, secret: bytes, mode: str, port_file: Path | None, relays: Sequence[str] = (), alpn: bytes = ALPN
    ) -> NetworkEndpoint:
        """Bind under the secret key (32 bytes), on the port in ``port_file`` if it is free, else on any port.

        Where the machine has no IPv6, only IPv4 is bound.

        Args:
            mode: one of ``NetworkMode.ALL``.
            port_file: None for any free port.
            relays: URLs of the relays. Peers reach the endpoint through the one of them that is nearest.
            alpn: protocol that its connections speak.

        Raises:
            IrohError: no port could be bound, or a URL is invalid.
        """
        install(asyncio.get_running_loop())
        hosts = _HOSTS[mode]
        own_relays = RelayMap.from_urls(list(relays))
        last: IrohError | None = None
        for port in (_read_port(port_file) if port_file is not None else 0, _free_port(hosts[0])):
            for bound in (hosts, hosts[:1]):
                if port == 0:
                    continue
                try:
                    options = EndpointOptions(preset=_Preset(own_relays, port, bound), secret_key=secret, alpns=[alpn])
                    raw = await Endpoint.bind(options)
                except IrohError as error:
                    last = error
                    continue
                if port_file is not None:
                    _write_port(port_file, port)
                return cls(raw, mode, frozenset(own_relays.urls()), alpn)
        raise last or RuntimeError("no port to bind")

    async def close(self) -> None:
        """Stop accepting, and end every connection. Takes at most 2 seconds."""
        for task in self._tasks:
            task.cancel()
        try:
            async with asyncio.timeout(2):
                for watch in self._watches:
                    await watch.stop()
                await asyncio.gather(self._raw.close(), self._direct_probe.close(), self._relay_probe.close())
        except (TimeoutError, IrohError) as error:
            log.warning("the endpoint did not close cleanly: %s", error)

    def address(self) -> EndpointAddress:
        """Return the address under which peers can reach this endpoint at the moment."""
        current = self._raw.addr()
        relay = current.relay_url()
        addresses = [a for a in current.direct_addresses() if not _unspecified(a)]
        if self._mode == NetworkMode.LOCAL:
            addresses = [a for a in self._raw.bound_sockets() if not _unspecified(a)]
        # iroh keeps the address of a removed relay for seconds
        relays = (relay,) if relay in self._relays else ()
        return EndpointAddress(self.id, relays, tuple(order_addresses(addresses)))

    def watch_address(self, on_change: Callable[[], object]) -> None:
        """Call ``on_change`` on the event loop after each change of ``address``. A call may also come without one."""
        self._watches += [
            self._raw.watch_addr(_AddressCallback(on_change)),
            self._raw.watch_home_relay(_RelayCallback(on_change)),
        ]

    def own_addresses(self) -> frozenset[str]:
        """Return the addresses (``ip:port``) that the endpoint knows by itself, also on a machine without a NAT."""
        return frozenset(self._raw.addr().direct_addresses()) - self.outside

    def has_network(self) -> bool:
        """Return whether the machine has an address beside those of loopback, if the network mode uses others."""
        return self._mode == NetworkMode.LOCAL or not all(map(is_loopback, self.own_addresses()))

    def relay_connections(self) -> int:
        """Return how often the endpoint has connected to a relay."""
        return self._raw.stats()["socket:relay_conns_success"].value

    def relay_counts(self) -> tuple[int, int]:
        """Return how many connections to relays were made, and how many have ended or failed."""
        counters = self._raw.stats()
        opened, closed, failed = (
            counters[f"socket:relay_conns_{each}"].value for each in ("success", "closed", "failed")
        )
        return opened, closed + failed

    def lacks_relay(self) -> bool:
        """Return whether there are relays in the settings, and iroh has chosen none of them."""
        return bool(self._relays) and not self.address().relays

    @property
    def relays(self) -> tuple[str, ...]:
        """URLs of the relays in the settings."""
        return tuple(sorted(self._relays))

    async def measure_relays(self) -> None:
        """Let iroh measure the relays, and choose one by the result. It does so after a change of their map.

        Raises:
            IrohError: the endpoint is closed.
        """
        for url in self.relays[:1]:
            await self._raw.insert_relay(RelayConfig(url=url, quic_port=_DISCOVERY_PORT))

    def bound_port(self, version: int) -> int:
        """Return the UDP port that is bound for IP version 4 or 6; 0 if there is none."""
        for address in self._raw.bound_sockets():
            host, _, port = address.rpartition(":")
            if (":" in host) == (version == 6):
                return int(port)
        return 0

    async def set_outside(self, addresses: frozenset[str]) -> None:
        """Offer these addresses (``ip:port``) to peer daemons from now on, in place of the last ones.

        They are addresses outside of a NAT, which the endpoint cannot know by itself. ``address`` has them, too.

        Raises:
            IrohError: an address is invalid.
        """
        before, self.outside = self.outside, addresses
        for address in sorted(addresses - before):
            await self._raw.add_external_addr(address)
        for address in sorted(before - addresses):
            await self._raw.remove_external_addr(address)

    def connected_relay(self) -> str:
        """Return the URL of the relay that the endpoint is connected to; empty without one.

        iroh names the relay that it has chosen also while no connection to it succeeds. Its counters tell.
        """
        counters = self._raw.stats()
        opened, closed = (counters[f"socket:relay_conns_{event}"].value for event in ("success", "closed"))
        relays = self.address().relays
        return relays[0] if relays and opened > closed else ""

    async def set_relays(self, relays: Sequence[str]) -> None:
        """Use these relays (URLs) from now on, and no others. New ones are added before old ones are removed.

        Raises:
            IrohError: a URL is invalid. Nothing was changed.
        """
        wanted = frozenset(RelayMap.from_urls(list(relays)).urls())
        before, self._relays = self._relays, wanted
        for url in sorted(wanted - before):
            await self._raw.insert_relay(RelayConfig(url=url, quic_port=_DISCOVERY_PORT))
        for url in sorted(before - wanted):
            await self._raw.remove_relay(url)

    async def answers(self, address: EndpointAddress) -> bool:
        """Return whether an endpoint answers over one of these addresses or relays. Cancel it when it takes too long.

        The answer does not depend on the connections with the endpoint (see ``PathProbe``).
        """
        endpoint, relays = address.endpoint, address.relays if self._mode == NetworkMode.INTERNET else ()
        probes = [self._relay_probe.answers(endpoint, relay, ()) for relay in relays]
        if address.addresses:
            probes.append(self._direct_probe.answers(endpoint, None, address.addresses))
        tasks = [self._loop.create_task(probe) for probe in probes]
        try:
            for answered in asyncio.as_completed(tasks):
                if await answered:
                    return True
            return False
        finally:
            for task in tasks:
                task.cancel()

    async def dial(self, address: EndpointAddress) -> Connection:
        """Open a connection to the endpoint. The handshake proves that the peer daemon holds the endpoint's key.

        Raises:
            PeerUnreachable: the handshake failed, or took longer than 10 seconds. ``RefusedByPeer`` if it was refused.
        """
        relay = address.relays[0] if address.relays and self._mode == NetworkMode.INTERNET else None
        if relay is None and address.relays and not address.addresses:
            reason = f"it is reached through relays only, and network mode {self._mode} uses none"
            raise PeerUnreachable(peer=address.endpoint.hex()[:10], reason=reason)
        try:
            target = EndpointAddr(EndpointId.from_bytes(address.endpoint), relay, list(address.addresses))
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                return await self._raw.connect(target, self._alpn)
        except TimeoutError:
            raise PeerUnreachable(peer=address.endpoint.hex()[:10], reason="no answer to the handshake") from None
        except IrohError as error:
            raise dial_error(address.endpoint, error) from error

    def accept_into(
        self,
        on_connection: Callable[[Connection], object],
        has_to_wait: Callable[[], bool] = lambda: False,
        is_blocked: Callable[[bytes], bool] = lambda _: False,
        is_known: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """Call ``on_connection`` with each connection that a peer daemon opens, from now on.

        While ``has_to_wait`` returns True, a handshake does not begin, for 2 seconds at most. Connections of endpoints
        for which ``is_blocked`` returns True are refused: through a relay before the handshake, and else right after
        it, because only the handshake proves the endpoint. Endpoints for which ``is_known`` returns True never have a
        penalty.
        """
        self._has_to_wait = has_to_wait
        self._is_blocked = is_blocked
        self._is_known = is_known
        self._spawn(self._accept(on_connection))

    async def _accept(self, on_connection: Callable[[Connection], object]) -> None:
        while True:
            try:
                incoming = await self._raw.accept_next()
            except IrohError as error:
                log.warning("cannot accept a connection: %s", error)
                continue
            if incoming is None:
                return
            self._spawn(self._handshake(incoming, on_connection))

    async def _handshake(self, incoming: Incoming, on_connection: Callable[[Connection], object]) -> None:
        try:
            address = await incoming.remote_addr()
            if not await self._may_handshake(incoming, address):
                return
            source = address.addr if isinstance(address, IncomingAddr.IP) else ""
            began = self._begin(source)
            try:
                for _ in range(_MOST_WAITS):
                    if not self._has_to_wait():
                        break
                    await asyncio.sleep(_WAIT_SECONDS)
                async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                    connection = await (await incoming.accept()).connect()
            finally:
                self._end(source, began)
        except (IrohError, TimeoutError) as error:
            log.info("the handshake of an incoming connection failed: %s", error)
            return
        endpoint = bytes(connection.remote_id().to_bytes())
        if self._is_blocked(endpoint):
            connection.close(CLOSE_SHUTDOWN, b"")
        elif self._is_punished(endpoint):
            self.refused += 1
            self.penalties.add_address(endpoint, source)
            connection.close(CLOSE_PROTOCOL_ERROR, b"too many connections that were closed for abuse")
        else:
            on_connection(connection)

    def _is_rejected(self, endpoint: bytes) -> bool:
        return self._is_blocked(endpoint) or self._is_punished(endpoint)

    def _is_punished(self, endpoint: bytes) -> bool:
        return self.penalties.is_punished(endpoint, self._loop.time()) and not self._is_known(endpoint)

    def _begin(self, source: str) -> float:
        self._handshakes += 1
        began = self._loop.time()
        if source:
            self._sources.setdefault(source, []).append(began)
        return began

    def _end(self, source: str, began: float) -> None:
        self._handshakes -= 1
        if source:
            times = self._sources[source]
            times.remove(began)
            if not times:
                del self._sources[source]

    async def _may_handshake(self, incoming: Incoming, address: IncomingAddr) -> bool:
        """Return whether the handshake may begin. If not, refuse it or answer it by a Retry.

        Addresses that a Retry has proved have rate limits of their own, so a sender that forges addresses takes no
        tokens from their owners.

        A peer daemon sends the first packet of a handshake to every address of this endpoint and through relays, and
        the one that arrives first decides where the replies go. If replies to that address are lost, every handshake
        would fail although the relay works. So while one from an address is unanswered, the next one must prove the
        address, and the copy that comes through a relay is accepted.
        """
        endpoint, network = b"", ""
        now = self._loop.time()
        proved = await incoming.remote_addr_validated()
        doubtful = False
        if isinstance(address, IncomingAddr.RELAY):
            endpoint, proved = bytes(address.endpoint_id.to_bytes()), True
        elif isinstance(address, IncomingAddr.IP):
            network = network_of(address.addr)
            if self.penalties.must_drop(address.addr, network, now):
                self.refused += 1
                await incoming.ignore()
                return False
            network += " proved" if proved else ""
            times = self._sources.get(address.addr)
            doubtful = times is not None and now - times[0] >= _ROUND_TRIP
        limited = self._limits.spend(HANDSHAKES, endpoint, network, now) is not None
        if not proved and (limited or doubtful or self._handshakes >= _RETRY_ABOVE):
            self.retried += 1
            await incoming.retry()
            return False
        if limited or self._handshakes >= _MAX_HANDSHAKES or (endpoint and self._is_rejected(endpoint)):
            self.refused += 1
            await incoming.refuse()
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unspecified(address: str) -> bool:
    return address.startswith(("0.0.0.0:", "[::]:"))


def _read_port(port_file: Path) -> int:
    try:
        port = int(port_file.read_text())
    except (OSError, ValueError):
        return 0
    return port if 0 < port < 65536 else 0


def _write_port(port_file: Path, port: int) -> None:
    try:
        port_file.write_text(f"{port}\n")
    except OSError as error:
        log.warning("cannot write the UDP port to %s, so the next start may use another one: %s", port_file, error)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
