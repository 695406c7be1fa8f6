"""Relay address query: asks the home relay which outside IP address it sees of this daemon.

``fastn-p2p relay`` answers ``GET /ping`` with the client's IP address in a header. Other relays have no such header;
iroh asks them by QUIC address discovery, which needs a certificate that it trusts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastn_p2p_client.retry import Backoff

from ...daemon_settings.server_urls import ping_url
from ..live_settings import LiveSettings
from ..transport.endpoint import NetworkEndpoint
from .reported_addresses import IpAddress

if TYPE_CHECKING:  # its import takes 3 MB and 60 ms, so it is made when a relay is first asked
    import httpcore

log = logging.getLogger(__name__)

HEADER: Final = b"fastn-client-address"
"""Header of the answer, in lower case. Its value is the IP address from which the request came."""
_TIMEOUT: Final = 3.0
"""Seconds for one request."""
_HEADERS: Final[list[tuple[bytes | str, bytes | str]]] = [("User-Agent", "fastn-p2p"), ("Accept-Encoding", "identity")]
_INTERVAL: Final = 60.0
"""Seconds between two requests: the outside address of a home changes when its router reconnects."""
_RETRY: Final = 2.0
"""Seconds after which a relay that has not answered is asked again. Doubles up to ``_INTERVAL``."""
_IDLE: Final = 3600.0
"""Seconds after which a relay without the header is asked again."""
_EXPIRES_AFTER: Final = 300.0
"""Seconds after the last answer for which its address is used."""


class RelayAddressQuery:
    """IP address of this daemon as the home relay sees it.

    Args:
        on_change: called when ``hosts`` has changed, or an address of the endpoint.

    Attributes:
        hosts: by IP version, the address, and the ``ip:port`` of the relay that has reported it.
    """

    def __init__(self, endpoint: NetworkEndpoint, settings: LiveSettings, on_change: Callable[[], object]) -> None:
        self.hosts: dict[int, tuple[IpAddress, str]] = {}
        self._endpoint = endpoint
        self._settings = settings
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._last_reply_at = self._loop.time()
        self._state: tuple[tuple[str, ...], frozenset[str]] = ((), frozenset())
        """Relays and own addresses as of the last request."""
        self._pool: httpcore.AsyncConnectionPool | None = None
        endpoint.watch_address(self._on_address)
        settings.on_change(self._on_address)
        self._task = self._loop.create_task(self._run())

    def close(self) -> None:
        """Ask no more."""
        self._task.cancel()

    def _on_address(self) -> None:
        if self._now() != self._state:
            self._wake.set()

    def _now(self) -> tuple[tuple[str, ...], frozenset[str]]:
        relays = self._endpoint.address().relays if self._settings.relays else ()
        return relays, self._endpoint.own_addresses()

    async def _run(self) -> None:
        backoff = Backoff(_RETRY, _INTERVAL, jitter=0)
        try:
            while True:
                self._wake.clear()
                before, self._state = self._state, self._now()
                relays, _ = self._state
                if relays != before[0]:
                    self._set({})
                elif self._state != before:
                    self._on_change()
                rest = _IDLE
                if relays:
                    answered, found = await self._query(relays[0])
                    if answered:
                        backoff.reset()
                        rest = _INTERVAL if found else _IDLE
                        self._last_reply_at = self._loop.time()
                        self._set(found)
                    else:
                        rest = backoff.next_delay()
                        if self._loop.time() - self._last_reply_at > _EXPIRES_AFTER:
                            self._set({})
                try:
                    async with asyncio.timeout(rest):
                        await self._wake.wait()
                    backoff.reset()
                except TimeoutError:
                    continue
        finally:
            if self._pool is not None:
                await self._pool.aclose()

    def _set(self, hosts: dict[int, tuple[IpAddress, str]]) -> None:
        if hosts != self.hosts:
            self.hosts = hosts
            self._on_change()

    async def _query(self, relay: str) -> tuple[bool, dict[int, tuple[IpAddress, str]]]:
        """Return whether the relay has answered, and what it sees."""
        import httpcore

        unavailable = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, TimeoutError)
        try:
            async with asyncio.timeout(_TIMEOUT):
                if self._pool is None:
                    self._pool = await asyncio.to_thread(_make_pool)
                async with self._pool.stream("GET", ping_url(relay), headers=_HEADERS) as response:
                    server = response.extensions["network_stream"].get_extra_info("server_addr")
        except unavailable as error:
            log.debug("the relay %s does not say which address it sees: %s", relay, error or type(error).__name__)
            return False, {}
        except Exception:
            log.exception("asking the relay %s failed", relay)
            return False, {}
        seen = next((value for name, value in response.headers if name.lower() == HEADER), b"")
        try:
            host = ipaddress.ip_address(seen.decode("ascii", "replace"))
        except ValueError:
            return True, {}
        if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
            host = host.ipv4_mapped
        return True, {host.version: (host, f"{server[0]}:{server[1]}")}


def _make_pool() -> httpcore.AsyncConnectionPool:
    """Return a new connection pool. Reads the certificates of the system, so it runs in a thread."""
    import ssl

    import httpcore

    return httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(), max_connections=1, keepalive_expiry=5.0
    )
