"""Key-value bucket of a NATS server with JetStream. It makes its connection at its first use, and again when needed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ..limits import MAX_CALL_TIMEOUT
from ..nats_client.nats_connection import connect, reason_of
from ..nats_client.nats_server import NatsServer, NatsUnusable
from .claim_store import CLAIM_SECONDS, REQUEST_SECONDS, ClaimEntry, ClaimStore

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

    from ..nats_client.direct_client import DirectClient


class NatsBucket(ClaimStore):
    """Bucket of a NATS server.

    Args:
        server: the NATS server.
        name: name of the bucket. It is made if it is not there. One that forgets values earlier than after
            ``MAX_CALL_TIMEOUT`` cannot be used.
        user: name of the connection, for the server.
    """

    def __init__(self, server: NatsServer, name: str, user: str) -> None:
        self.label = f"the NATS server {server.url}"
        self._server = server
        self._name = name
        self._user = user
        self._client: DirectClient | None = None
        self._bucket: KeyValue | None = None
        self._opening = asyncio.Lock()

    async def create(self, key: str, value: bytes) -> bool:
        from nats.js.errors import KeyWrongLastSequenceError

        bucket = await self._open()
        try:
            await bucket.create(key, value)
        except KeyWrongLastSequenceError:
            return False
        return True

    async def replace(self, key: str, value: bytes, revision: int) -> bool:
        from nats.js.errors import KeyWrongLastSequenceError

        bucket = await self._open()
        try:
            await bucket.update(key, value, last=revision)
        except KeyWrongLastSequenceError:
            return False
        return True

    async def put(self, key: str, value: bytes) -> None:
        await (await self._open()).put(key, value)

    async def get(self, key: str) -> ClaimEntry | None:
        from nats.js.errors import KeyNotFoundError

        bucket = await self._open()
        try:
            found = await bucket.get(key)
        except KeyNotFoundError:
            return None
        return ClaimEntry(found.value or b"", found.revision or 0)

    async def remove_expired(self) -> None:
        """The bucket's TTL does that."""

    def reason_of(self, error: Exception) -> str:
        return error.reason if isinstance(error, NatsUnusable) else reason_of(error, self._server)

    async def close(self) -> None:
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
            self._client = await connect(self._server, self._user)
            self._bucket = await self._find(self._client)
            return self._bucket

    async def _find(self, client: DirectClient) -> KeyValue:
        from nats.js.errors import BucketNotFoundError

        jetstream = client.jetstream(timeout=REQUEST_SECONDS)
        try:
            found = await jetstream.key_value(self._name)
        except BucketNotFoundError:
            found = await jetstream.create_key_value(bucket=self._name, ttl=CLAIM_SECONDS)
        ttl = (await found.status()).ttl
        if ttl and ttl < MAX_CALL_TIMEOUT:
            reason = f"the bucket {self._name} forgets values after {ttl:g} s; set its TTL to {CLAIM_SECONDS:g} s"
            raise NatsUnusable(server=self._server.url, reason=reason)
        return found
