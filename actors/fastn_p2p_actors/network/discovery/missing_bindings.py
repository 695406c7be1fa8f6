"""Missing bindings: what one daemon of an identity does not serve, while another one may, such as its home.

Each daemon of an identity has bindings of its own. One that lacks a binding has executed nothing when it says so. So
the request goes to another daemon, and for some time further requests to the binding go there at once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastn_p2p_client.errors import InstanceNotFound, ProtocolNotFound

MISSING: Final = (ProtocolNotFound, InstanceNotFound)
"""Errors of a daemon that lacks a binding."""
MISSING_CODES: Final = frozenset(each.code for each in MISSING)
_SECONDS: Final = 30.0
"""Seconds after which a daemon is asked again: the binding may have been added."""
_MOST: Final = 1024
"""Bindings that are remembered. One more replaces the oldest."""


class MissingBindings:
    """Endpoints that lack a binding, by identity, protocol and instance."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._until: dict[tuple[bytes, str, str], dict[bytes, float]] = {}
        self._homes: dict[tuple[bytes, str, str], bytes] = {}

    def add(self, identity: bytes, endpoint: bytes, protocol: str, instance: str) -> None:
        """Remember that the daemon at an endpoint lacks a binding."""
        key = identity, protocol, instance
        endpoints = self._until.pop(key, {})
        endpoints[endpoint] = self._loop.time() + _SECONDS
        self._until[key] = endpoints
        if len(self._until) > _MOST:
            del self._until[next(iter(self._until))]

    def set_home(self, identity: bytes, endpoint: bytes, protocol: str, instance: str) -> None:
        """Remember that only the daemon at an endpoint serves a binding."""
        key = identity, protocol, instance
        self._until.get(key, {}).pop(endpoint, None)
        self._homes.pop(key, None)
        self._homes[key] = endpoint
        if len(self._homes) > _MOST:
            del self._homes[next(iter(self._homes))]

    def home(self, identity: bytes, protocol: str, instance: str) -> bytes | None:
        """Return the endpoint of the only daemon that serves a binding, as far as that is known."""
        return self._homes.get((identity, protocol, instance))

    def endpoints(self, identity: bytes, protocol: str, instance: str) -> frozenset[bytes]:
        """Return the endpoints that lack a binding."""
        key = identity, protocol, instance
        known, now = self._until.get(key), self._loop.time()
        if known is None:
            return frozenset()
        present = {endpoint: until for endpoint, until in known.items() if until > now}
        if present:
            self._until[key] = present
        else:
            del self._until[key]
        return frozenset(present)

    def __len__(self) -> int:
        return len(self._until)
