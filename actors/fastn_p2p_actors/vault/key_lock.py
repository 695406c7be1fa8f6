"""Lock of the vault's keys: opens and closes them with the secret of a slot.

A random master key seals every key file, and ``slots.json`` has the master key, sealed under the secret of each slot.
While the vault is open, the master key is in one page of memory. The supervisor keeps the descriptor of that page, so a
vault that has crashed is open again after its restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from fastn_p2p_client.errors import DaemonBusy, P2PError, VaultNotEncrypted, WrongPassphrase

from ..runtime.process_setup import boot_ms
from .attempts import AttemptLog
from .key_store import KeyStore
from .locked_memory import LockedMemory
from .messages import LockState
from .owner_messages import SlotInfo, VaultStatus
from .passphrase import Secret
from .secret_page import SecretPage
from .slot_opener import OpenedSlot, SlotOpener
from .slots import SlotFile

ATTEMPTS_FILE: Final = "attempts.json"
_CHECK_SECONDS: Final = 5.0
"""Seconds between two checks of the time at which the vault locks itself. Timers do not count sleep of the machine."""
_RELEASED: Final = -1

Record: TypeAlias = Callable[[str, Mapping[str, object]], object]
"""Writes an event with its fields to the audit log."""
log = logging.getLogger(__name__)


class KeyLock:
    """Lock of a key store. One change is made at a time.

    Args:
        folder: the directory of the vault.
        store: its key store, not yet open.
        keep: has the supervisor keep a descriptor for the next vault; -1 releases the one that it has.
        record: writes an event to the audit log.
        clock: return Unix time in seconds.

    Attributes:
        busy: held during a change.
        slots: ways to open it; ``SlotChanges`` changes them.
    """

    def __init__(
        self,
        folder: Path,
        store: KeyStore,
        memory: LockedMemory,
        *,
        keep: Callable[[int], None] = lambda _: None,
        record: Record = lambda _event, _fields: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.busy = asyncio.Lock()
        self.slots = SlotFile(folder, memory)
        self._store = store
        self._memory = memory
        self._attempts = AttemptLog(folder / ATTEMPTS_FILE, clock)
        self._opener = SlotOpener(self.slots, self._attempts)
        self._keep = keep
        self._record = record
        self._clock = clock
        self._page: SecretPage | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changing = False

    def open(self, kept: int | None = None) -> None:
        """Open the store: locked if its keys are sealed, unless ``kept`` is a page with the master key.

        Raises:
            HomeUnusable: a file cannot be used.
            StorageFailed: the transport key could not be written.
        """
        self.slots.load()
        self._attempts.load()
        self._store.sealed = self._memory.hidden = self.slots.exists
        self._store.open()
        if kept is None:
            return
        page = SecretPage(kept)
        try:
            if self.slots.exists and page.is_filled:
                self._store.unlock(page.pointer)
                self._use(page)
                return
        except P2PError as error:
            log.error("the vault starts locked: %s", error)
        page.wipe()
        self._keep(_RELEASED)

    def close(self) -> None:
        """Stop the timer, and close this process's descriptor. The supervisor keeps its own one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._page is not None:
            self._page.close_descriptor()

    # ── state ────────────────────────────────────────────────────────────────────────────────────

    def check_ready(self) -> None:
        """Check that no change of the key files is going on. Raises DaemonBusy."""
        if self._changing:
            raise DaemonBusy(actor="vault")

    def lock_state(self) -> LockState:
        """Return the state, for the gateway."""
        return LockState(self.slots.exists, self._store.is_locked, self._until)

    def status(self) -> VaultStatus:
        """Return the state, for the owner."""
        slots = tuple(SlotInfo(each.name, each.kind, each.created) for each in self.slots.listed)
        wait = self._attempts.wait()
        seconds = int(wait) + 1 if wait > 0 else 0
        return VaultStatus(
            self.slots.exists, self._store.is_locked, self._until, slots, seconds, self._store.count_identities()
        )

    @property
    def _until(self) -> int:
        """Unix time at which the vault locks itself; 0 for never."""
        deadline = 0 if self._page is None else self._page.deadline_ms
        return int(self._clock() + (deadline - boot_ms()) / 1000) if deadline else 0

    # ── changes ──────────────────────────────────────────────────────────────────────────────────

    async def unlock(self, descriptor: int, seconds: int) -> None:
        """Unlock the vault with the secret on the descriptor. If it is open, set the time at which it locks itself.

        Args:
            seconds: time until it locks itself; 0 for never.

        Raises:
            VaultNotEncrypted: there is no slot.
            InvalidPassphrase, PassphraseDelayed, WrongPassphrase, Overloaded: the vault is as it was.
            HomeUnusable, StorageFailed: a key file cannot be used; the vault is as it was.
        """
        async with self.busy:
            page, slot = await self.open_with(descriptor)
            try:
                if self._store.is_locked:
                    with self.change():
                        await asyncio.to_thread(self._store.unlock, page.pointer)
                    self.adopt(page)
                else:
                    page.wipe()
            except BaseException:
                page.wipe()
                raise
            if self._page is not None:
                self._page.deadline_ms = boot_ms() + 1000 * seconds if seconds else 0
                self._schedule()
            self._record("vault-unlocked", {"slot": slot.name})

    async def lock(self) -> None:
        """Wipe the identities' keys and the master key. The transport key stays, as the network process has it anyway.

        Raises:
            VaultNotEncrypted: there is no slot.
        """
        async with self.busy:
            self.check_encrypted()
            self._lock()

    async def open_with(self, descriptor: int) -> OpenedSlot:
        """Open a slot with the secret on the descriptor. The state of the lock does not change.

        Raises:
            VaultNotEncrypted: there is no slot.
            InvalidPassphrase, PassphraseDelayed, WrongPassphrase, Overloaded: no slot was opened.
        """
        self.check_encrypted()
        with Secret() as secret:
            await asyncio.to_thread(secret.read, descriptor)
            try:
                return await asyncio.to_thread(self._opener.open, secret)
            except WrongPassphrase:
                self._record("passphrase-wrong", {})
                raise

    def check_encrypted(self) -> None:
        """Check that there is a slot. Raises VaultNotEncrypted."""
        if not self.slots.exists:
            raise VaultNotEncrypted

    def adopt(self, page: SecretPage) -> None:
        """Use the page whose master key the store uses, and have the supervisor keep it."""
        self._use(page)
        self._keep(page.descriptor)

    def release(self) -> None:
        """Wipe the page. The supervisor keeps none any more."""
        page, self._page = self._page, None
        if page is not None:
            page.wipe()
        self._keep(_RELEASED)
        self._schedule()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Refuse other requests while a thread uses the key store."""
        self._changing = True
        try:
            yield
        finally:
            self._changing = False

    # ── the page ─────────────────────────────────────────────────────────────────────────────────

    def _use(self, page: SecretPage) -> None:
        self._page = page
        self._schedule()

    def _lock(self) -> None:
        self._store.lock()
        if self._page is not None:
            self._record("vault-locked", {})
        self.release()

    def _schedule(self) -> None:
        """Lock at the page's deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = 0 if self._page is None else self._page.deadline_ms
        if deadline:
            left = max(0.0, (deadline - boot_ms()) / 1000)
            self._timer = asyncio.get_running_loop().call_later(min(left, _CHECK_SECONDS), self._on_timer)

    def _on_timer(self) -> None:
        if self._page is not None and not self._page.is_filled:
            self._lock()
            log.info("the time is over for which the vault was unlocked: it is locked")
        else:
            self._schedule()
