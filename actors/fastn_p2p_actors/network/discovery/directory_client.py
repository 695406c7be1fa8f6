"""HTTP client of one pkarr directory: publishes and resolves signed packets, and trusts nothing that it is told.

An answer may be late, endless, forged or a redirect. Each request ends within ``_TOTAL_TIMEOUT`` and reads at most
``MAX_BODY`` bytes. There are no cookies, proxies, decompression or redirects, and no more than ``_CONNECTIONS``
connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastn_p2p_client.errors import P2PError

from ...credentials.pkarr import CONTENT_TYPE, MAX_BODY, SignedPacket, encode_key, read_signed_packet

if TYPE_CHECKING:  # its import takes 3 MB and 60 ms, so it is made when a directory is first used
    import httpcore

_CONNECT_TIMEOUT: Final = 3.0
"""Seconds for the TCP connection, and again for TLS."""
_TOTAL_TIMEOUT: Final = 5.0
"""Seconds for a request, with everything that belongs to it."""
_CONNECTIONS: Final = 4
"""Connections to one directory."""
_IDLE: Final = 30.0
"""Seconds for which an idle connection is kept."""
_SHORTEST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 600.0
"""Seconds: the shortest and the longest pause that a directory may ask for."""
_POOL_TIMEOUT: Final = 1.0
"""Seconds until the connection pool must have a connection for a request. Requests wait for their turn before, because
a request that is cancelled while it waits inside the pool of httpcore 1.0.9 keeps its place for ever."""
_FAIL_FAST: Final = 1.0
"""Seconds after a failed connection for which no other is opened. Without a network, each takes a thread for DNS."""
_HEADERS: Final[list[tuple[bytes | str, bytes | str]]] = [("User-Agent", "fastn-p2p"), ("Accept-Encoding", "identity")]
_OK: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_TOO_MANY: Final = (429, 503)
_OLDER: Final = (409, 412, 428)
"""Statuses for a packet that is older than the one that the directory has."""
_MAX_SHOWN: Final = 120
"""Characters of the directory's own text that an error names."""


class NewerPacket(Exception):
    """The directory has a packet with a higher sequence."""


class DirectoryUnavailable(P2PError):
    """The directory does not answer as a directory does. Never leaves the network process."""

    code = "directory-unavailable"
    retryable = True
    template = "{reason}"
    reason: str


class DirectoryRefused(DirectoryUnavailable):
    """The directory does not take this packet. The same packet again would be refused, too."""


class DirectoryBusy(DirectoryUnavailable):
    """The directory takes no more requests for ``retry_delay`` seconds."""

    retry_delay: float


class DirectoryClient:
    """Requests to one directory.

    Args:
        url: URL to which ``/<z-base-32 key>`` is appended.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._base = url.rstrip("/")
        self._loop = asyncio.get_running_loop()
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._down_until = 0.0
        self._down_reason = ""

    async def get(self, key: bytes) -> SignedPacket | None:
        """Return the packet under a key (32 bytes), after verifying it; None if there is none.

        Raises:
            DirectoryUnavailable: there is no answer, or it is not a packet.
            BadMessage, BadSignature: the packet is damaged or forged.
        """
        status, body, _ = await self._request("GET", key)
        if status in (404, 410):
            return None
        if status != 200:
            raise self._status_error(status, body)
        return read_signed_packet(key, body)

    async def put(self, key: bytes, body: bytes) -> None:
        """Publish a packet under its key (32 bytes).

        Raises:
            NewerPacket: the directory has a newer packet.
            DirectoryBusy: it wants the packet later.
            DirectoryRefused: it does not want this packet.
            DirectoryUnavailable: there is no answer.
        """
        status, answer, retry_after = await self._request("PUT", key, body)
        if status in _OK:
            return
        if status in _OLDER:
            raise NewerPacket
        if status in _TOO_MANY:
            retry_delay = min(_LONGEST_DELAY, max(_SHORTEST_DELAY, retry_after))
            raise DirectoryBusy(reason=f"it takes no more requests for {retry_delay:g} s", retry_delay=retry_delay)
        if 400 <= status < 500 and status != 408:
            raise DirectoryRefused(reason=self._status_error(status, answer).reason)
        raise self._status_error(status, answer)

    async def close(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def _request(self, method: str, key: bytes, body: bytes = b"") -> tuple[int, bytes, float]:
        """Return status, body and the seconds in ``Retry-After`` (1 without one)."""
        if self._loop.time() < self._down_until:
            raise DirectoryUnavailable(reason=self._down_reason)
        try:
            async with asyncio.timeout(_TOTAL_TIMEOUT), self._slots:
                return await self._exchange(method, f"{self._base}/{encode_key(key)}", body)
        except TimeoutError:
            raise DirectoryUnavailable(reason=f"no answer within {_TOTAL_TIMEOUT:g} s") from None

    async def _exchange(self, method: str, url: str, body: bytes) -> tuple[int, bytes, float]:
        pool = self._pool or await self._open()
        import httpcore

        headers = [*_HEADERS, ("Content-Type", CONTENT_TYPE)] if body else _HEADERS
        timeouts = {"connect": _CONNECT_TIMEOUT, "pool": _POOL_TIMEOUT}
        try:
            async with pool.stream(
                method,
                url,
                headers=headers,
                content=body or None,
                extensions={"timeout": timeouts},
            ) as response:
                fields = {name.lower(): value for name, value in response.headers}
                answer = b""
                async for piece in response.aiter_stream():
                    answer += piece
                    if len(answer) > MAX_BODY:
                        if response.status in _OK:
                            raise DirectoryUnavailable(reason=f"its answer has more than {MAX_BODY} bytes")
                        break
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            self._down_reason = _connection_problem(error)
            self._down_until = self._loop.time() + _FAIL_FAST
            raise DirectoryUnavailable(reason=self._down_reason) from None
        except httpcore.PoolTimeout:
            await self.close()
            raise DirectoryUnavailable(reason="its connections are in use") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise DirectoryUnavailable(reason=str(error) or "the connection ended") from None
        if response.status in _REDIRECTS:
            target = fields.get(b"location", b"").decode("latin-1")[:_MAX_SHOWN]
            raise DirectoryRefused(reason=f"it redirects to {target!r}, which is not followed")
        return response.status, answer[:MAX_BODY], _seconds(fields.get(b"retry-after", b""))

    async def _open(self) -> httpcore.AsyncConnectionPool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncio.to_thread(_make_pool)
            return self._pool

    def _status_error(self, status: int, body: bytes) -> DirectoryUnavailable:
        text = " ".join(body.decode("utf-8", "replace").split())[:_MAX_SHOWN]
        words = f": {text}" if text.isprintable() and text else ""
        return DirectoryUnavailable(reason=f"it answered with status {status}{words}")


def _make_pool() -> httpcore.AsyncConnectionPool:
    """Return a new connection pool. Reads the certificates of the system, so it runs in a thread."""
    import ssl

    import httpcore

    return httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(), max_connections=_CONNECTIONS, keepalive_expiry=_IDLE
    )


def _connection_problem(error: Exception) -> str:
    """Return why no connection was made."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"no connection to it: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return f"no connection to it: {error or type(error).__name__}"


def _seconds(retry_after: bytes) -> float:
    """Return the seconds in a ``Retry-After`` header; 1 if it has a date, or is missing."""
    return float(retry_after) if retry_after.isdigit() and len(retry_after) < 9 else 1.0
