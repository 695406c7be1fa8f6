"""Claims of retried calls, in a store that all daemons of an identity share.

Each call with a call id is claimed before it is executed. A claim is made once, by whichever process is first:

=====================================  ================================================================================
what the store says of a call          the call
=====================================  ================================================================================
nothing, or that it was given back     is claimed and executed here
it was answered                        gets the answer that is kept there
it was answered, with a long answer    ends with ``OutcomeUnknown``
a process that lives has it            waits for its answer
a process that does not live has it    ends with ``OutcomeUnknown``
the store cannot be used               waits, and ends with ``StorageUnavailable`` before its deadline; nothing has
                                       executed it
=====================================  ================================================================================

A process with calls lives as long as its beat in the store changes. So no clocks are compared.
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

from ..call_context import CallContext
from ..errors import ConnectionLost, OutcomeUnknown, Overloaded, ProtocolNotFound, StorageUnavailable
from ..keys import PublicKey
from .claim_store import ClaimStore

MAX_KEPT: Final = 64 * 1024
"""Bytes of the longest answer that is kept."""
BEAT_SECONDS: Final = 1.0
DEAD_SECONDS: Final = 10.0
"""Seconds without a beat after which a process does not live."""
STORE_SECONDS: Final = 2.0
"""Seconds to keep an answer."""
REMOVE_SECONDS: Final = 60.0
"""Seconds between two removals of old claims."""
LAST_SECONDS: Final = 0.3
"""Seconds before its deadline at which a call ends that could not be claimed."""
_RETRY_SECONDS: Final = 0.2
_LEAST_SECONDS: Final = 0.05
"""Seconds of the first attempt to claim a call whose deadline is near."""

log = logging.getLogger(__name__)

Outcome = tuple[bytes, bytes]
"""Header and payload of an answer."""


class ClaimState(IntEnum):
    """State of a claimed call."""

    RUNNING = 0
    ANSWERED = 1
    FREE = 2
    """It was not executed."""
    UNKNOWN = 3
    """It may have been executed, and there is no answer."""


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Value of a key in the store."""

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
        key: key of the binding's identity.
        protocol, instance: names of the binding.
        store: is closed with the claims.
    """

    def __init__(self, key: PublicKey, protocol: str, instance: str, store: ClaimStore) -> None:
        self._key = key
        self._protocol = protocol
        self._instance = instance
        self._store = store
        self._name = os.urandom(8).hex()
        self._tasks: set[asyncio.Task[None]] = set()
        self._notes: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._calls = 0
        """Calls that are being claimed or executed."""
        self._problem = ""

    async def close(self) -> None:
        """Note what is known, and end the connection."""
        self._is_closed = True
        if self._notes:
            await asyncio.wait(self._notes)  # each takes STORE_SECONDS at most
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._store.close()

    async def execute_once(self, peer: bytes, call: CallContext, execute: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Claim a call and execute it, or return the answer that another process has kept.

        Args:
            peer: key of the caller.
            call: has a call id.
            execute: executes it. ``ConnectionLost`` means that it may have been executed, ``ProtocolNotFound`` and
                ``Overloaded`` that it was not.

        Raises:
            OutcomeUnknown: it may have been executed, and there is no answer.
            StorageUnavailable: it could not be claimed, and was not executed.
        """
        names = f"{self._protocol}/{self._instance}/{call.command}".encode()
        key = blake2b(b"".join((peer, bytes(self._key), call.call_id, names)), digest_size=20).hexdigest()
        mine = Claim(self._name, os.urandom(8))
        if not self._tasks:
            self._tasks = {asyncio.create_task(self._beat()), asyncio.create_task(self._remove_expired())}
        self._calls += 1
        try:
            kept = await self._claim(key, mine, call)
            return await self._execute(key, mine, execute) if kept is None else kept
        finally:
            self._calls -= 1

    async def _execute(self, key: str, mine: Claim, execute: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Execute a call that was claimed here, and note what has become of it."""
        try:
            header, payload = await execute()
        except (ProtocolNotFound, Overloaded):
            await self._release(key, mine)
            raise
        except ConnectionLost as error:
            await self._note(key, mine, ClaimState.UNKNOWN)
            raise self._unknown() from error
        except (asyncio.CancelledError, Exception):
            self._note_later(key, mine, ClaimState.UNKNOWN)
            raise
        if len(header) + len(payload) <= MAX_KEPT:
            await self._note(key, mine, ClaimState.ANSWERED, header, payload)
        else:
            await self._note(key, mine, ClaimState.UNKNOWN)
        return header, payload

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(peer=self._key.id52)

    async def _claim(self, key: str, mine: Claim, call: CallContext) -> Outcome | None:
        """Claim a call. Return None if it is to be executed here, else its answer."""
        watch = _BeatWatch()
        while True:
            try:
                async with asyncio.timeout(max(_LEAST_SECONDS, call.remaining() - LAST_SECONDS)):
                    claim = await self._try_claim(key, mine)
                    self._on_success()
                    if claim is None:
                        return None
                    if claim.state == ClaimState.ANSWERED:
                        return claim.header, claim.payload
                    if claim.state == ClaimState.UNKNOWN or (
                        claim.state == ClaimState.RUNNING and not await self._is_alive(claim.claimer, watch)
                    ):
                        raise self._unknown()
            except Exception as error:
                self._report(error)
                if call.remaining() < LAST_SECONDS:
                    raise StorageUnavailable(what=f"the claim store of {self._protocol}") from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _try_claim(self, key: str, mine: Claim) -> Claim | None:
        """Claim a call unless it is claimed. Return the claim of another one, or None."""
        if await self._store.create(key, _encode(mine)):
            return None
        entry = await self._store.get(key)
        if entry is None:
            return await self._try_claim(key, mine)
        claim = _claims.decode(entry.value)
        if claim.nonce == mine.nonce:
            return None  # the confirmation of an earlier try was lost
        if claim.state == ClaimState.FREE and await self._store.replace(key, _encode(mine), entry.revision):
            return None
        return claim

    async def _note(self, key: str, mine: Claim, state: ClaimState, header: bytes = b"", payload: bytes = b"") -> None:
        """Note what has become of a call that was claimed here. Without the store, the claim stays as it is."""
        value = _encode(Claim(mine.claimer, mine.nonce, state, header, payload))
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.put(key, value)
        except Exception as error:
            self._report(error)

    async def _release(self, key: str, mine: Claim) -> None:
        """Note that a call was not executed, unless another process has claimed it meanwhile."""
        value = _encode(Claim(mine.claimer, mine.nonce, ClaimState.FREE))
        try:
            async with asyncio.timeout(STORE_SECONDS):
                entry = await self._store.get(key)
                if entry is not None and _claims.decode(entry.value).nonce == mine.nonce:
                    await self._store.replace(key, value, entry.revision)
        except Exception as error:
            self._report(error)

    def _note_later(self, key: str, mine: Claim, state: ClaimState) -> None:
        """Note what has become of a call that was cancelled. Nothing is noted that ``close`` would not wait for."""
        if not self._is_closed:
            task = asyncio.create_task(self._note(key, mine, state))
            self._notes.add(task)
            task.add_done_callback(self._notes.discard)

    # ── beats ────────────────────────────────────────────────────────────────────────────────────────

    async def _beat(self) -> None:
        """Say that this process lives while it has calls, until cancelled."""
        while True:
            try:
                if self._calls:
                    await self._store.put(f"claimer-{self._name}", b"")
            except Exception as error:
                self._report(error)
            await asyncio.sleep(BEAT_SECONDS)

    async def _remove_expired(self) -> None:
        """Remove old claims now and then, until cancelled."""
        while True:
            try:
                await self._store.remove_expired()
            except Exception as error:
                self._report(error)
            await asyncio.sleep(REMOVE_SECONDS)

    async def _is_alive(self, claimer: str, watch: _BeatWatch) -> bool:
        """Return whether a process lives that has a call, and may answer it."""
        if claimer == self._name:
            return False  # the call has ended here, or its answer would have been sent
        entry = await self._store.get(f"claimer-{claimer}")
        return watch.is_alive(0 if entry is None else entry.revision)

    def _on_success(self) -> None:
        if self._problem:
            log.info("calls can be claimed at %s again", self._store.label)
            self._problem = ""

    def _report(self, error: Exception) -> None:
        """Log a problem once, until there is another one. Raise it if it is none of the store."""
        if isinstance(error, OutcomeUnknown):
            raise error
        problem = self._store.reason_of(error)
        if problem != self._problem:
            self._problem = problem
            log.warning("calls cannot be claimed at %s: %s", self._store.label, problem)


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
