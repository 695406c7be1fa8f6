"""HTTP server of the metrics, on loopback or on a Unix socket. It has one page, and reads nothing but requests for it.

The socket is bound before the gateway enters its sandbox, in which it can make none. Other users of the machine can
read a page on loopback, but not a web page: a browser names the host of that page, and the request is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from fastn_p2p_client.errors import P2PError

from ...daemon_settings.metrics_address import MetricsAddress

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_CONNECTIONS: Final = 8
"""Connections at the same time; further ones are closed at once."""
SECONDS: Final = 10.0
"""Seconds for a request with its answer. Each connection is for one request."""
_MAX_REQUEST: Final = 8192
"""Bytes of a request."""

log = logging.getLogger(__name__)


def bind_metrics(address: MetricsAddress) -> socket.socket:
    """Return a socket that listens at the address.

    Raises:
        OSError: the address is in use, or not allowed.
    """
    if address.path:
        return _bind_unix(Path(address.path))
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address.host, address.port))
        bound.listen(MAX_CONNECTIONS)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_unix(path: Path) -> socket.socket:
    """Return a socket at the path, in place of one that an earlier process has left there."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(f"{path} is there already, and no socket")
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        bound.bind(os.fspath(path))
        bound.listen(MAX_CONNECTIONS)
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


class MetricsServer:
    """Server of one page.

    Args:
        listener: socket that listens.
        page: returns the page. Raises P2PError.
    """

    def __init__(self, listener: socket.socket, page: Callable[[], Awaitable[bytes]]) -> None:
        self._listener = listener
        self._page = page
        self._server: asyncio.Server | None = None
        self._open = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener, limit=_MAX_REQUEST)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(SECONDS):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError):
            pass  # the other end has gone, or is too slow
        except Exception:
            log.exception("the metrics were not served")
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST)
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(_MAX_REQUEST))
            if not isinstance(event, h11.Request):
                return
            status, content = await self._respond(event)
        except h11.RemoteProtocolError as error:
            status, content = error.error_status_hint, b"not a request of HTTP/1.1\n"
        headers = [
            ("Content-Type", CONTENT_TYPE),
            ("Content-Length", str(len(content))),
            ("Connection", "close"),
        ]
        response = h11.Response(status_code=status, headers=headers)
        events: list[Any] = [response, h11.Data(data=content), h11.EndOfMessage()]
        writer.writelines([sent for each in events if (sent := connection.send(each))])
        await writer.drain()

    async def _respond(self, request: Any) -> tuple[int, bytes]:
        """Return status and content of the answer."""
        host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), "")
        if not _is_own_host(host):
            return 403, b"the request is for another host\n"
        if request.target.partition(b"?")[0] != b"/metrics":
            return 404, b"see /metrics\n"
        if request.method != b"GET":
            return 405, b"only GET\n"
        try:
            return 200, await self._page()
        except P2PError as error:
            return 503, f"{error}\n".encode()


def _is_own_host(host: str) -> bool:
    """Return whether a ``Host`` names this machine by itself: an address of loopback, ``localhost``, or nothing."""
    name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
