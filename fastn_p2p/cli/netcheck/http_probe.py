"""HTTP request to a relay or directory of the settings, timed. No proxies, no redirects, no cookies."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from .time_limit import DNS_TIMEOUT, DnsTimeout, find_addresses

TIMEOUT: Final = 4.0
"""Seconds for connecting, and for the request with its whole answer."""
_SEEN_AS: Final = "Fastn-Client-Address"
_MOST: Final = 64 * 1024
"""Bytes of an answer that are read."""


class HttpResponse(NamedTuple):
    """Answer of a server.

    Attributes:
        status: HTTP status; 0 if there was no answer.
        body: at most 64 KiB.
        ms: milliseconds of the request, with connecting.
        clock_offset: seconds by which the server's clock is ahead of this machine's; None without a ``Date``.
        problem: reason for which there was no answer; empty if there was one.
        seen_as: IP address from which the request came, as a relay of ours says; empty if it does not.
        lacks_dns: True if DNS has not answered.
    """

    status: int
    body: bytes
    ms: float
    clock_offset: float | None
    problem: str
    seen_as: str = ""
    lacks_dns: bool = False


def request(method: str, url: str, body: bytes | None = None) -> HttpResponse:
    """Send one request, and return its answer. Never raises. Blocks: call it in a thread."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    # A port in any case: http.client would look for one in the host, and find the end of an IPv6 address.
    host, port = parts.hostname or "", parts.port or kind.default_port
    connection = kind(host.rstrip("."), port, timeout=TIMEOUT)
    connection._create_connection = _connect  # type: ignore[attr-defined]  # as http.client's own tests do
    began, began_at = time.perf_counter(), time.time()
    try:
        connection.connect()
        with _time_limit(connection.sock):
            connection.request(method, parts.path or "/", body, {"User-Agent": "fastn-p2p", "Connection": "close"})
            response = connection.getresponse()
            content = response.read(_MOST)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return HttpResponse(0, b"", _ms(began), None, _words(error), lacks_dns=isinstance(error, DnsTimeout))
    finally:
        connection.close()
    seen_as = _address(response.getheader(_SEEN_AS, ""))
    return HttpResponse(
        response.status, content, _ms(began), _offset(response.getheader("Date"), began_at), "", seen_as
    )


def _connect(server: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
    """Connect to the first address of a host that accepts. All of them together have the time of one."""
    ends = time.monotonic() + timeout
    last: OSError = TimeoutError()
    for _, _, _, _, address in find_addresses(*server, socket.SOCK_STREAM):
        try:
            return socket.create_connection(address[:2], max(0.01, ends - time.monotonic()))  # type: ignore[arg-type]
        except OSError as error:
            last = error
    raise last


@contextmanager
def _time_limit(sock: socket.socket) -> Iterator[None]:
    """Shut the socket down after ``TIMEOUT``: its own timeout begins again with each byte that a server sends.

    Raises:
        TimeoutError: the time was over.
    """
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(TIMEOUT, end)
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError):
        if is_over.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _offset(date: str | None, began_at: float) -> float | None:
    """Return how far the server's clock is ahead, from a time of whole seconds."""
    try:
        server_time = parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None
    return server_time + 0.5 - (began_at + time.time()) / 2


def _address(text: str) -> str:
    """Return the IP address in a header; empty without one, and for a relay on this machine."""
    try:
        host = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return "" if host.is_loopback else str(mapped or host)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, DnsTimeout):
        return f"DNS has not answered within {DNS_TIMEOUT:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is not found in DNS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"it does not answer as an HTTP server: {type(error).__name__}"
