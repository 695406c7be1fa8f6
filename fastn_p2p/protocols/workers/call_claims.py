"""Claims of retried calls, in a key-value bucket of the NATS server (JetStream) that all daemons of an identity share.

Each call with a call id is claimed before a worker gets it. A claim is made once, by whichever daemon is first:

=====================================  ================================================================================
what the bucket says of a call         the call
=====================================  ================================================================================
nothing, or that it was given back     is claimed and executed here
it was answered                        gets the answer that is kept there
it was answered, with a long answer    ends with ``OutcomeUnknown``
a daemon that lives has it             waits for its answer
a daemon that does not live has it     ends with ``OutcomeUnknown``
the bucket cannot be used              waits, and ends with ``StorageUnavailable`` before its deadline; nothing has
                                       executed it
=====================================  ================================================================================

A daemon lives as long as its beat in the bucket changes. So no clocks are compared.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from enum import IntEnum
from hashlib import blake2b
from typing import Final

import msgspec

from fastn_p2p_client.errors import ConnectionLost, OutcomeUnknown, Overloaded, ProtocolNotFound, StorageUnavailable
from fastn_p2p_client.limits import MAX_CALL_TIMEOUT
from fastn_p2p_client.protocol import BindingContext, CallContext
from fastn_p2p_client.workers.nats_bucket import NatsBucket
from fastn_p2p_client.workers.nats_channel import reason_of
from fastn_p2p_client.workers.nats_server import NatsServer, NatsUnusable

BUCKET_SECONDS: Final = 2 * MAX_CALL_TIMEOUT
"""Seconds after which the bucket forgets a claim, if the daemon has made the bucket."""
MAX_KEPT: Final = 64 * 1024
"""Bytes of the longest answer that is kept."""
BEAT_SECONDS: Final = 1.0
DEAD_SECONDS: Final = 10.0
"""Seconds without a beat after which a daemon does not live."""
STORE_SECONDS: Final = 2.0
"""Seconds to keep an answer."""
LAST_SECONDS: Final = 0.3
"""Seconds before its deadline at which a call ends that could not be claimed."""
_RETRY_SECONDS: Final = 0.2

log = logging.getLogger(__name__)

Outcome = tuple[bytes, bytes]
"""Header and payload of an answer."""


class ClaimState(IntEnum):
    """State of a claimed call."""

    RUNNING = 0
    ANSWERED = 1
    FREE = 2
    """No worker has had it."""
    UNKNOWN = 3
    """It may have been executed, and there is no answer."""


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Value of a key in the bucket."""

    claimer: str
    """Random name of the binding's process."""
    nonce: bytes
    """Random bytes of the call, by which a claimer recognises a claim whose confirmation was lost."""
    state: int = ClaimState.RUNNING
    header: bytes = b""
    payload: bytes = b""


_encode: Final = msgspec.msgpack.Encoder().encode
_claims: Final = msgspec.msgpack.Decoder(Claim)


class CallClaims:
    """Claims of one binding. Create and use it inside one event loop.

    Args:
        context: the binding.
        server: the NATS server.
        bucket: name of the bucket.
    """

    def __init__(self, context: BindingContext, server: NatsServer, bucket: str) -> None:
        self._context = context
        self._server = server
        self._name = os.urandom(8).hex()
        self._bucket = NatsBucket(
            server,
            bucket,
            f"fastn-p2p {context.identity} claims",
            seconds=BUCKET_SECONDS,
            least_seconds=MAX_CALL_TIMEOUT,
        )
        self._beating: asyncio.Task[None] | None = None
        self._problem = ""

    async def close(self) -> None:
        """End the connection."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        await self._bucket.close()

    async def execute_once(self, peer: bytes, call: CallContext, execute: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Claim a call and execute it, or return the answer that another daemon has kept.

        Args:
            peer: key of the caller.
            call: has a call id.
            execute: gives the call to a worker. ``ConnectionLost`` means that the worker may have executed it.

        Raises:
            OutcomeUnknown: it may have been executed, and there is no answer.
            StorageUnavailable: it could not be claimed, and was not executed.
        """
        names = f"{self._context.protocol}/{self._context.instance}/{call.command}".encode()
        key = blake2b(b"".join((peer, bytes(self._context.key), call.call_id, names)), digest_size=20).hexdigest()
        mine = Claim(self._name, os.urandom(8))
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        kept = await self._claim(key, mine, call)
        if kept is not None:
            return kept
        try:
            header, payload = await execute()
        except (ProtocolNotFound, Overloaded):
            await self._note(key, mine, ClaimState.FREE)
            raise
        except ConnectionLost as error:
            await self._note(key, mine, ClaimState.UNKNOWN)
            raise self._unknown() from error
        if len(header) + len(payload) <= MAX_KEPT:
            await self._note(key, mine, ClaimState.ANSWERED, header, payload)
        else:
            await self._note(key, mine, ClaimState.UNKNOWN)
        return header, payload

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(peer=self._context.key.id52)

    async def _claim(self, key: str, mine: Claim, call: CallContext) -> Outcome | None:
        """Claim a call. Return None if it is to be executed here, else its answer."""
        watch = _BeatWatch()
        while True:
            try:
                claim = await self._try_claim(key, mine)
                if claim is None:
                    return None
                if claim.state == ClaimState.ANSWERED:
                    return claim.header, claim.payload
                if claim.state == ClaimState.UNKNOWN:
                    raise self._unknown()
                if claim.state == ClaimState.RUNNING and (
                    claim.claimer == self._name or not watch.is_alive(await self._beat_of(claim.claimer))
                ):
                    raise self._unknown()
            except Exception as error:
                self._report(error)
                if call.remaining() < LAST_SECONDS:
                    raise StorageUnavailable(what=f"the claim store of {self._context.protocol}") from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _try_claim(self, key: str, mine: Claim) -> Claim | None:
        """Claim a call unless it is claimed. Return the claim of another one, or None."""
        if await self._bucket.create(key, _encode(mine)):
            return None
        entry = await self._bucket.get(key)
        if entry is None:
            return await self._try_claim(key, mine)
        claim = _claims.decode(entry.value)
        if claim.nonce == mine.nonce:
            return None  # the confirmation of an earlier try was lost
        if claim.state == ClaimState.FREE and await self._bucket.replace(key, _encode(mine), entry.revision):
            return None
        return claim

    async def _note(self, key: str, mine: Claim, state: ClaimState, header: bytes = b"", payload: bytes = b"") -> None:
        """Note what has become of a call that was claimed here. Without the server, the claim stays as it is."""
        value = _encode(Claim(mine.claimer, mine.nonce, state, header, payload))
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._bucket.put(key, value)
        except Exception as error:
            self._report(error)

    # ── beats ────────────────────────────────────────────────────────────────────────────────────────

    async def _beat(self) -> None:
        """Say that this process lives, until cancelled."""
        while True:
            try:
                await self._bucket.put(f"claimer-{self._name}", b"")
                if self._problem:
                    log.info("calls can be claimed at %s again", self._server.url)
                    self._problem = ""
            except Exception as error:
                self._report(error)
            await asyncio.sleep(BEAT_SECONDS)

    async def _beat_of(self, claimer: str) -> int:
        """Return the number of the last beat of a process; 0 if there is none."""
        entry = await self._bucket.get(f"claimer-{claimer}")
        return 0 if entry is None else entry.revision

    def _report(self, error: Exception) -> None:
        """Log a problem once, until there is another one. Raise it if it is none of the server."""
        if isinstance(error, OutcomeUnknown):
            raise error
        problem = error.reason if isinstance(error, NatsUnusable) else reason_of(error, self._server)
        if problem != self._problem:
            self._problem = problem
            log.warning("calls cannot be claimed at the NATS server %s: %s", self._server.url, problem)


class _BeatWatch:
    """Watch of another process by its beats."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last = -1
        self._since = 0.0

    def is_alive(self, beat: int) -> bool:
        """Return whether it lives, given the number of its last beat."""
        now = self._loop.time()
        if beat != self._last:
            self._last, self._since = beat, now
        return now - self._since < DEAD_SECONDS
