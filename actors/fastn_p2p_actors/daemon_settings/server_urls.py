"""Checks of the URLs of relays and directories."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_URL: Final = 255
"""Characters of a URL. A peer record has 255 for each relay."""
_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".home.arpa")
"""Endings of host names that are never public (RFC 6761, RFC 6762, RFC 8375 and the reserved ``.internal``)."""


def url_problem(url: str) -> str:
    """Return the reason why ``url`` is not the URL of a server; empty if it is one."""
    if len(url) > MAX_URL:
        return f"it has more than {MAX_URL} characters"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it has a space or another character that a URL cannot have"
    parts = _split(url)
    if parts is None:
        return "it is not a URL"
    if parts.scheme not in ("http", "https"):
        return "it does not begin with https:// or http://"
    if not parts.hostname or parts.port == 0:
        return "it does not name a host"
    if parts.username is not None:
        return "it has a user name"
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        return "it has a ? or #"
    return ""


def has_path(url: str) -> bool:
    """Return whether a valid URL has a path."""
    return urlsplit(url).path not in ("", "/")


def ping_url(relay: str) -> str:
    """Return the URL at which a relay answers pings. iroh ignores the path of a relay's URL, too."""
    return urljoin(relay, "/ping")


def is_unencrypted_and_public(url: str) -> bool:
    """Return whether a valid URL is ``http`` and its host is not known to be in a private network."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    host = (parts.hostname or "").rstrip(".")
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return host != "localhost" and not host.endswith(_PRIVATE_NAMES)


def is_on_loopback(url: str) -> bool:
    """Return whether the host of a valid URL is this machine, by its name or by an address of loopback."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is not a number up to 65535
    except ValueError:
        return None
    return parts
