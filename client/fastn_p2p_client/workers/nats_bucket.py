"""Key-value bucket of a NATS server with JetStream. It makes its connection at its first use, and again when needed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from .nats_channel import connect
from .nats_server import NatsServer, NatsUnusable

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

    from .direct_client import DirectClient

REQUEST_SECONDS: Final = 2.0
"""Seconds for one request to the server."""


class BucketEntry(NamedTuple):
    """Value of a key, and the number of its last change."""

    value: bytes
    revision: int


class NatsBucket:
    """Bucket of a NATS server. Create and use it inside one event loop.

    Each method but ``close`` raises NatsUnusable, or an error of nats-py or the system, while it cannot be used.

    Args:
        server: the NATS server.
        name: name of the bucket. It is made if it is not there.
        label: name of the connection, for the server.
        seconds: time after which a bucket that is made here forgets values.
        least_seconds: a bucket that forgets earlier cannot be used.
    """

    def __init__(self, server: NatsServer, name: str, label: str, *, seconds: float, least_seconds: float) -> None:
        self._server = server
        self._name = name
        self._label = label
        self._seconds = seconds
        self._least_seconds = least_seconds
        self._client: DirectClient | None = None
        self._bucket: KeyValue | None = None
        self._opening = asyncio.Lock()

    async def create(self, key: str, value: bytes) -> bool:
        """Set the value of a key that has none. Return False if it has one."""
        from nats.js.errors import KeyWrongLastSequenceError

        bucket = await self._open()
        try:
            await bucket.create(key, value)
        except KeyWrongLastSequenceError:
            return False
        return True

    async def replace(self, key: str, value: bytes, revision: int) -> bool:
        """Set the value of a key whose last change has this number. Return False if it was changed since."""
        from nats.js.errors import KeyWrongLastSequenceError

        bucket = await self._open()
        try:
            await bucket.update(key, value, last=revision)
        except KeyWrongLastSequenceError:
            return False
        return True

    async def put(self, key: str, value: bytes) -> None:
        """Set the value of a key."""
        await (await self._open()).put(key, value)

    async def get(self, key: str) -> BucketEntry | None:
        """Return the value of a key, if it has one."""
        from nats.js.errors import KeyNotFoundError

        bucket = await self._open()
        try:
            found = await bucket.get(key)
        except KeyNotFoundError:
            return None
        return BucketEntry(found.value or b"", found.revision or 0)

    async def close(self) -> None:
        """End the connection."""
        client, self._client, self._bucket = self._client, None, None
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(REQUEST_SECONDS):
                    await client.close()

    async def _open(self) -> KeyValue:
        async with self._opening:
            if self._bucket is not None and self._client is not None and not self._client.is_closed:
                if not self._client.is_connected:
                    raise NatsUnusable(server=self._server.url, reason="it does not answer")
                return self._bucket
            await self.close()
            self._client = await connect(self._server, self._label)
            self._bucket = await self._find(self._client)
            return self._bucket

    async def _find(self, client: DirectClient) -> KeyValue:
        from nats.js.errors import BucketNotFoundError

        jetstream = client.jetstream(timeout=REQUEST_SECONDS)
        try:
            found = await jetstream.key_value(self._name)
        except BucketNotFoundError:
            found = await jetstream.create_key_value(bucket=self._name, ttl=self._seconds)
        ttl = (await found.status()).ttl
        if ttl and ttl < self._least_seconds:
            reason = f"the bucket {self._name} forgets values after {ttl:g} s; set its TTL to {self._seconds:g} s"
            raise NatsUnusable(server=self._server.url, reason=reason)
        return found
