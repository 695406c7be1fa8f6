"""HTTP request to a relay or directory of the settings, timed. No proxies, no redirects, no cookies."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

TIMEOUT: Final = 5.0
"""Seconds for connecting, and for each piece of the answer."""
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
    """

    status: int
    body: bytes
    ms: float
    clock_offset: float | None
    problem: str


def request(method: str, url: str, body: bytes | None = None) -> HttpResponse:
    """Send one request, and return its answer. Never raises. Blocks: call it in a thread."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host.rstrip("."), port, timeout=TIMEOUT)
    began, began_at = time.perf_counter(), time.time()
    try:
        connection.request(method, parts.path or "/", body, {"User-Agent": "fastn-p2p", "Connection": "close"})
        response = connection.getresponse()
        content = response.read(_MOST)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return HttpResponse(0, b"", _ms(began), None, _words(error))
    finally:
        connection.close()
    return HttpResponse(response.status, content, _ms(began), _offset(response.getheader("Date"), began_at), "")


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _offset(date: str | None, began_at: float) -> float | None:
    """Return how far the server's clock is ahead, from a time of whole seconds."""
    try:
        server_time = parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None
    return server_time + 0.5 - (began_at + time.time()) / 2


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is not found in DNS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"it does not answer as an HTTP server: {type(error).__name__}"
