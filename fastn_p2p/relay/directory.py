"""The directory: pkarr packets over HTTP. ``PUT`` publishes a packet under its key, ``GET`` resolves the key.

The directory proves every packet, but trusts none: readers verify the signature again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from aiohttp import web

from fastn_p2p_actors.credentials.dns_packet import read_records
from fastn_p2p_actors.credentials.pkarr import (
    CONTENT_TYPE,
    MAX_BODY,
    PacketTooLarge,
    SignedPacket,
    decode_key,
    read_signed_packet,
)
from fastn_p2p_actors.runtime.rate_limiter import RateLimiter
from fastn_p2p_client.errors import BadMessage, BadSignature, StorageDamaged, StorageFailed

from .allowed_keys import AllowedKeys
from .directory_store import DirectoryStore, OlderPacket
from .metrics import Metrics
from .relay_limits import BODY_TIMEOUT, MAX_ADDRESSES, PUBLISH_RATE, RESOLVE_RATE

log = logging.getLogger(__name__)

PATH: Final = "/pkarr/"
_RETRY_AFTER: Final = {"Retry-After": "1"}
_OPEN_TO_BROWSERS: Final = {"Access-Control-Allow-Origin": "*"}


class Directory:
    """Answers requests under ``PATH``.

    Args:
        access: keys that may publish. Everybody may resolve.
    """

    def __init__(self, store: DirectoryStore, access: AllowedKeys, metrics: Metrics) -> None:
        self._store = store
        self._access = access
        self._metrics = metrics
        self._publishers = RateLimiter[str](PUBLISH_RATE, MAX_ADDRESSES)
        self._resolvers = RateLimiter[str](RESOLVE_RATE, MAX_ADDRESSES)

    async def answer(self, request: web.BaseRequest, address: str) -> web.StreamResponse:
        limiter = self._publishers if request.method == "PUT" else self._resolvers
        if not limiter.try_spend(address, time.monotonic()):
            self._metrics.requests_limited += 1
            log.info("%s sends more requests to the directory than its limit", address)
            return web.Response(status=429, headers=_RETRY_AFTER, text="too many requests from this address\n")
        try:
            key = decode_key(request.path.removeprefix(PATH))
        except BadMessage as error:
            return _refuse(400, error.reason)
        if request.method in ("GET", "HEAD"):
            return self._resolve(key)
        if request.method == "PUT":
            return await self._publish(request, key)
        return web.Response(status=405, headers={"Allow": "GET, HEAD, PUT"})

    def _resolve(self, key: bytes) -> web.Response:
        packet = self._store.get(key)
        if packet is None:
            self._metrics.packets_missing += 1
            return _refuse(404, "no packet under this key")
        self._metrics.packets_resolved += 1
        return web.Response(body=packet.body, content_type=CONTENT_TYPE, headers=_OPEN_TO_BROWSERS)

    async def _publish(self, request: web.BaseRequest, key: bytes) -> web.Response:
        try:
            packet = await self._read_packet(request, key)
            if not self._access.admits(key):
                return self._refuse_packet(403, "this key is not on the access list")
            await self._store.put(key, packet.sequence, packet.body())
        except PacketTooLarge as error:
            return self._refuse_packet(413, error.reason)
        except (BadMessage, BadSignature) as error:
            return self._refuse_packet(400, str(error))
        except OlderPacket:
            return self._refuse_packet(409, "a newer packet is here")
        except TimeoutError:
            return self._refuse_packet(408, "the packet took too long")
        except (StorageFailed, StorageDamaged) as error:
            log.error("the directory cannot be written: %s", error)
            return web.Response(status=503, headers=_RETRY_AFTER, text="the packet could not be stored\n")
        self._metrics.packets_published += 1
        return web.Response(status=204, headers=_OPEN_TO_BROWSERS)

    async def _read_packet(self, request: web.BaseRequest, key: bytes) -> SignedPacket:
        """Return the packet in the request's body, after verifying it."""
        body = b""
        if (request.content_length or 0) <= MAX_BODY:
            async with asyncio.timeout(BODY_TIMEOUT):
                while len(body) <= MAX_BODY and (piece := await request.content.readany()):
                    body += piece
        if len(body) > MAX_BODY or (request.content_length or 0) > MAX_BODY:
            raise PacketTooLarge(reason=f"a signed packet has at most {MAX_BODY} bytes")
        packet = read_signed_packet(key, body)
        read_records(packet.packet)
        return packet

    def _refuse_packet(self, status: int, reason: str) -> web.Response:
        self._metrics.packets_refused += 1
        return _refuse(status, reason)


def _refuse(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=f"{reason}\n", headers=_OPEN_TO_BROWSERS)
