"""Transports for httpx: ``p2p://PEER/NAME/PATH`` is the path ``/PATH`` of a web service that a peer exposes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

import httpcore
import httpx

from ..client import Client
from ..errors import ApplicationError, DeadlineExceeded, P2PError
from ..event_loop_thread import close, run_blocking
from ..home import Home
from ..limits import MAX_CALL_TIMEOUT
from ..session.session import Session

PROTOCOL: Final = "Web"
SCHEME: Final = "p2p"
_HOST_END: Final = ".p2p"


class AsyncPeerTransport(httpx.AsyncHTTPTransport):
    """Transport of ``httpx.AsyncClient`` to web services of peers.

    ::

        async with httpx.AsyncClient(mounts={"p2p://": AsyncPeerTransport("alice")}) as client:
            response = await client.get("p2p://bob/web/report.html")

    A request that cannot be made raises ``httpx.ConnectError`` or ``httpx.ConnectTimeout``. The error of the daemon,
    such as ``Denied``, is the ``__cause__`` of its ``__cause__``.
    """

    def __init__(
        self, identity: str | None = None, *, home: Home | str | None = None, max_connections: int = 100
    ) -> None:
        """
        Args:
            identity: name of the identity that calls; None for the only one online.
            home: the daemon's home directory, as for ``Client``.
            max_connections: sessions that are open at once.
        """
        self._client = Client(home)
        backend = _AsyncBackend(self._client, identity)
        self._pool = httpcore.AsyncConnectionPool(network_backend=backend, max_connections=max_connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response. Raises ``httpx.TransportError``."""
        prefix = _redirect(request)
        response = await super().handle_async_request(request)
        _redirect_answer(response, prefix)
        return response

    async def aclose(self) -> None:
        """End all connections."""
        await super().aclose()
        self._client.close()

    async def __aexit__(self, *error: Any) -> None:
        await self.aclose()


class SyncPeerTransport(httpx.HTTPTransport):
    """Transport of ``httpx.Client`` to web services of peers. Arguments and errors: as ``AsyncPeerTransport``."""

    def __init__(
        self, identity: str | None = None, *, home: Home | str | None = None, max_connections: int = 100
    ) -> None:
        self._client = Client(home)
        backend = _Backend(_AsyncBackend(self._client, identity))
        self._pool = httpcore.ConnectionPool(network_backend=backend, max_connections=max_connections)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response. Raises ``httpx.TransportError``."""
        prefix = _redirect(request)
        response = super().handle_request(request)
        _redirect_answer(response, prefix)
        return response

    def close(self) -> None:
        """End all connections."""
        super().close()
        close(self._client)

    def __exit__(self, *error: Any) -> None:
        self.close()


def _redirect(request: httpx.Request) -> str:
    """Turn the URL of a request into one for the connection pool. Return what stands before the path.

    Raises:
        httpx.UnsupportedProtocol: the URL names no service of a peer.
    """
    url = request.url
    name, _, rest = url.raw_path.decode("ascii").lstrip("/").partition("/")
    instance, question, query = name.partition("?")
    if url.scheme != SCHEME or not url.host or not instance or url.port is not None:
        raise httpx.UnsupportedProtocol(f"{url} has another form than p2p://PEER/NAME/PATH", request=request)
    path = f"/{question}{query}" if question else f"/{rest}"
    request.url = httpx.URL(scheme="http", host=f"{instance}.{url.host}{_HOST_END}", raw_path=path.encode("ascii"))
    return f"{SCHEME}://{url.host}/{instance}"


def _redirect_answer(response: httpx.Response, prefix: str) -> None:
    """Turn a redirect to a path of the service into one to its URL."""
    location = response.headers.get("location", "")
    host = prefix.removeprefix(f"{SCHEME}://").partition("/")[0]
    for own in (f"http://{host}/", f"//{host}/"):
        if location.startswith(own):
            location = "/" + location.removeprefix(own)
            break
    if location.startswith("/") and not location.startswith("//"):
        response.headers["location"] = prefix + location


def _seconds(timeout: float | None) -> float:
    return MAX_CALL_TIMEOUT if timeout is None else min(timeout, MAX_CALL_TIMEOUT)


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    """Opens a session in place of a connection."""

    def __init__(self, client: Client, identity: str | None) -> None:
        self._client = client
        self._identity = identity

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _AsyncStream:
        instance, _, peer = host.removesuffix(_HOST_END).partition(".")
        try:
            session = await self._client.connect(
                self._identity, peer, PROTOCOL, instance, timeout=max(_seconds(timeout), 0.001)
            )
        except DeadlineExceeded as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except (P2PError, ApplicationError) as error:
            raise httpcore.ConnectError(str(error)) from error
        return _AsyncStream(session)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, session: Session) -> None:
        self._session = session

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._session.read(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except P2PError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._session.write(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except P2PError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        with contextlib.suppress(P2PError):
            await self._session.close()

    def get_extra_info(self, info: str) -> Any:
        return self._session.has_input if info == "is_readable" else None


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: _AsyncBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        return _Stream(run_blocking(self._backend.connect_tcp(host, port, timeout)))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: _AsyncStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return run_blocking(self._stream.read(max_bytes, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        run_blocking(self._stream.write(buffer, timeout))

    def close(self) -> None:
        run_blocking(self._stream.aclose())

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
