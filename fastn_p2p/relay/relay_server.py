"""Relay, directory, address discovery and metrics in one process: start, reload, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Final

import uvloop
from aiohttp import web

from fastn_p2p_actors.runtime.process_setup import raise_file_limit
from fastn_p2p_supervisor.sd_notify import SystemdNotifier

from .address_discovery import AddressDiscovery, DiscoveryRejecter
from .allowed_keys import AllowedKeys
from .config import ListenAddress, RelayConfig
from .datagram_relay import DatagramRelay
from .directory import PATH, Directory
from .directory_store import DirectoryStore
from .http_server import HttpServer, answer_index, answer_no_content, answer_ping
from .log_sampling import configure_log
from .metrics import CONTENT_TYPE, Metrics, MetricsPage
from .tls_files import TlsFiles

log = logging.getLogger(__name__)

_EXPIRY_INTERVAL: Final = 600.0
"""Seconds between two removals of expired packets."""


class AddressUnusable(Exception):
    """An address cannot be bound. The message names the option."""

    def __init__(self, option: str, address: ListenAddress, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno else error.strerror
        super().__init__(f"{option}: cannot listen on {address}: {reason}. Choose another address or port")


class RelayServer:
    """The whole process. Use it in one event loop.

    Raises:
        OSError: a file cannot be read.
        InvalidCertificate: certificate and key do not belong together, or are none.
        InvalidAccessList: the access list has a line that is no key.
    """

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self.metrics = Metrics()
        self._access = AllowedKeys(config.allow)
        self._tls = None
        if config.certificate is not None and config.key is not None:
            self._tls = TlsFiles(config.certificate, config.key)
        self._store = DirectoryStore(config.directory_file, config.limits.packets)
        self.relay = DatagramRelay(config.limits, self._access, self.metrics)
        directory = Directory(self._store, self._access, self.metrics)
        self._http = HttpServer(
            {
                "/": answer_index,
                "/relay": self.relay.serve,
                "/ping": answer_ping,
                "/generate_204": answer_no_content,
                PATH: directory.answer,
            },
            config.limits,
            self.metrics,
        )
        self._metrics_page: web.AppRunner | None = None
        self._discovery: list[AddressDiscovery | DiscoveryRejecter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.addresses: list[ListenAddress] = []
        """Addresses that are bound."""
        self.discovery_addresses: list[ListenAddress] = []
        self.metrics_addresses: list[ListenAddress] = []

    async def start(self) -> None:
        """Open the directory, and listen.

        Raises:
            AddressUnusable: an address cannot be bound.
            StorageFailed: the directory's file cannot be read or written.
            StorageDamaged: the directory's file is damaged.
        """
        config = self._config
        await self._store.open()
        self.metrics.add_gauge("clients", "Clients that are connected.", lambda: len(self.relay.clients))
        self.metrics.add_gauge("open_connections", "Connections that are open.", lambda: len(self._http))
        self.metrics.add_gauge("packets", "Packets in the directory.", lambda: len(self._store))
        context = self._tls.context if self._tls else None
        try:
            bound = await self._http.listen(config.listen.bound_host, config.listen.port, context)
        except OSError as error:
            raise AddressUnusable("--listen", config.listen, error) from None
        self.addresses = [ListenAddress(*each) for each in bound]
        for host in {address.host for address in self.addresses}:
            await self._serve_discovery(host)
        if config.metrics is not None:
            await self._serve_metrics(config.metrics)
        self._tasks = [
            asyncio.create_task(self.relay.sweep_forever()),
            asyncio.create_task(self._expire_forever()),
        ]

    def describe(self) -> list[str]:
        """Return a line for each service and address: its name and its URL."""
        scheme = "http" if self._tls is None else "https"
        lines = []
        for address in self.addresses:
            base = f"{scheme}://{address}"
            lines += [f"relay {base}/", f"directory {base}{PATH.rstrip('/')}"]
        lines += [f"address discovery udp://{address}" for address in self.discovery_addresses]
        return lines + [f"metrics http://{address}/metrics" for address in self.metrics_addresses]

    def reload(self) -> None:
        """Read the access list and the certificate again. If that fails, the earlier content stays in use."""
        for what, again in self._reloadable():
            try:
                again()
            except (OSError, ValueError) as error:
                log.error("the %s stays as it was: %s", what, error)
            else:
                log.info("the %s was read again", what)
        self.relay.disconnect_denied()

    async def stop(self) -> None:
        """Stop listening, announce the end to the clients, and close everything."""
        self._http.stop_listening()
        for task in self._tasks:
            task.cancel()
        for discovery in self._discovery:
            discovery.close()
        await self.relay.stop()
        await self._http.close()
        if self._metrics_page is not None:
            await self._metrics_page.cleanup()
        await self._store.close()

    def _reloadable(self) -> list[tuple[str, Callable[[], None]]]:
        found: list[tuple[str, Callable[[], None]]] = []
        if self._config.allow is not None:
            found.append(("access list", self._access.reload))
        if self._tls is not None:
            found.append(("certificate", self._tls.reload))
            found += [("certificate", each.reload) for each in self._discovery if isinstance(each, AddressDiscovery)]
        return found

    async def _serve_discovery(self, host: str) -> None:
        """Serve address discovery at ``host``. Without a certificate, refuse it there."""
        address = ListenAddress(host, self._config.discovery_port)
        loop = asyncio.get_running_loop()
        tls, metrics = self._tls, self.metrics
        try:
            bound = _bind_udp(address)
        except OSError as error:
            if tls is not None:
                raise AddressUnusable("--qad-port", address, error) from None
            log.warning("UDP %s cannot be used (%s): daemons connect 3 s later", address, error.strerror)
            return
        if tls is None:
            self._discovery.append((await loop.create_datagram_endpoint(DiscoveryRejecter, sock=bound))[1])
            return
        _, discovery = await loop.create_datagram_endpoint(
            lambda: AddressDiscovery(tls.certificate, tls.key, metrics), sock=bound
        )
        self._discovery.append(discovery)
        self.discovery_addresses.append(ListenAddress(*bound.getsockname()[:2]))

    async def _serve_metrics(self, address: ListenAddress) -> None:
        page = MetricsPage(self.metrics)

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=page.text(), headers={"Content-Type": CONTENT_TYPE})

        application = web.Application()
        application.router.add_get("/metrics", answer)
        self._metrics_page = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._metrics_page.setup()
        try:
            await web.TCPSite(self._metrics_page, address.bound_host, address.port).start()
        except OSError as error:
            raise AddressUnusable("--metrics", address, error) from None
        self.metrics_addresses = [ListenAddress(*bound[:2]) for bound in self._metrics_page.addresses]

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_INTERVAL)
            try:
                await self._store.remove_expired()
            except Exception:
                log.exception("expired packets could not be removed")


def _bind_udp(address: ListenAddress) -> socket.socket:
    """Return a UDP socket of one address family: one for all IPv6 addresses leaves IPv4 to another socket."""
    made = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def run(config: RelayConfig, on_start: Callable[[RelayServer], None]) -> None:
    """Run until SIGINT or SIGTERM. SIGHUP reloads.

    Args:
        on_start: called when everything listens.

    Raises:
        OSError: a file cannot be read.
        InvalidCertificate: certificate and key do not belong together, or are none.
        AddressUnusable: an address cannot be bound.
        InvalidAccessList: the access list has a line that is no key.
        StorageFailed: the directory's file cannot be read or written.
        StorageDamaged: the directory's file is damaged.
    """
    configure_log()
    raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, on_start))


async def _run(config: RelayConfig, on_start: Callable[[RelayServer], None]) -> None:
    notifier = SystemdNotifier.from_environment(os.environ, os.getpid())
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = RelayServer(config)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    try:
        await server.start()
        on_start(server)
        notifier.ready("relaying")
        while not stop.is_set():
            notifier.alive()
            try:
                async with asyncio.timeout(notifier.watchdog):
                    await stop.wait()
            except TimeoutError:
                continue
    finally:
        notifier.stopping("telling the clients")
        await server.stop()
        notifier.close()
