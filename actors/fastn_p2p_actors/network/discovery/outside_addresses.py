"""Outside addresses: offers peers the addresses at which this daemon is reached from outside of its NAT.

Two NATs let packets through only when both daemons know their outside addresses and send at the same time. There are
two sources: peer daemons report the address that they see (``reported_addresses``), and the relay reports the IP
address (``relay_address_query``). Most NATs keep the port where it is free, so the relay's answer with the endpoint's
own port is offered, too. If that is wrong, peers send a few packets in vain.
"""

from __future__ import annotations

import asyncio
import logging

from iroh.iroh_ffi import IrohError

from ...daemon_settings.sections import NetworkMode
from ..connections.connection import PeerConnection
from ..live_settings import LiveSettings
from ..transport.endpoint import NetworkEndpoint
from .relay_address_query import RelayAddressQuery
from .reported_addresses import ReportedAddresses, is_outside, join

log = logging.getLogger(__name__)


class OutsideAddresses:
    """Sets the outside addresses of the endpoint.

    Args:
        settings: name the network mode and the relays. In mode ``local`` there are no outside addresses.
    """

    def __init__(self, endpoint: NetworkEndpoint, settings: LiveSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._reported = ReportedAddresses()
        self._query = RelayAddressQuery(endpoint, settings, self._update)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Stop. The addresses stay until the endpoint closes."""
        self._query.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    # ── events of connections ────────────────────────────────────────────────────────────────────

    def on_report(self, connection: PeerConnection, address: str) -> None:
        """A peer daemon reports the address that it sees of this daemon."""
        direct, _ = connection.addresses()
        known = connection.introductions.has_known
        reporter = direct[0] if direct else ""
        if self._reported.add(connection.endpoint, address, reporter=reporter, is_known=known):
            self._update()

    def on_introduced(self, connection: PeerConnection) -> None:
        """An identity was proved over a connection: its reports may count more now."""
        if connection.introductions.has_known and self._reported.on_known(connection.endpoint):
            self._update()

    def on_disconnected(self, connection: PeerConnection) -> None:
        """The last connection with an endpoint has ended."""
        if self._reported.on_closed(connection.endpoint, self._loop.time()):
            self._update()

    # ── result ───────────────────────────────────────────────────────────────────────────────────

    def wanted(self) -> frozenset[str]:
        """Return the outside addresses that should be offered now."""
        if self._settings.mode == NetworkMode.LOCAL or not self._endpoint.has_network():
            return frozenset()
        hosts = self._query.hosts
        self._reported.set_relay_hosts({version: str(host) for version, (host, _) in hosts.items()})
        own = self._endpoint.own_addresses()
        own_hosts = {address.rpartition(":")[0].strip("[]") for address in own}
        found = self._reported.trusted(self._loop.time())
        for version, (host, relay) in hosts.items():
            port = self._endpoint.bound_port(version)
            if port and str(host) not in own_hosts and is_outside(host, relay):
                found.append(join(host, port))
        return frozenset(found) - own

    def _update(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._task = self._loop.create_task(self._apply())
        expiry = self._reported.next_expiry()
        if expiry < float("inf"):
            self._timer = self._loop.call_at(expiry, self._update)

    async def _apply(self) -> None:
        """Set what is wanted, again until nothing has changed meanwhile."""
        applied: frozenset[str] | None = None
        try:
            while (wanted := self.wanted()) != applied:
                if wanted != self._endpoint.outside:
                    log.info("outside addresses: %s", ", ".join(sorted(wanted)) or "none")
                await self._endpoint.set_outside(wanted)
                applied = wanted
        except IrohError as error:
            log.warning("an outside address is not used: %s", error.message())
        finally:
            self._task = None
