"""Lock of the vault's keys: opens and closes them with the owner's passphrase.

A random master key seals every key file, and ``slots.json`` has the master key, sealed under the passphrase. While the
vault is open, the master key is in one page of memory. The supervisor keeps the descriptor of that page, so a vault
that has crashed is open again after its restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fastn_p2p_actors.credentials.sodium import lib
from fastn_p2p_client.errors import (
    DaemonBusy,
    InvalidPassphrase,
    Overloaded,
    P2PError,
    VaultNotEncrypted,
    WrongPassphrase,
)

from ..runtime.process_setup import boot_ms
from .attempts import AttemptLog
from .key_store import KeyStore
from .locked_memory import LockedMemory
from .messages import LockState
from .owner_messages import SlotInfo, VaultStatus
from .passphrase import PRODUCT_COST, Argon2Cost, Secret
from .sealing import KEY_BYTES
from .secret_page import SecretPage
from .slots import PASSPHRASE, SlotFile

ATTEMPTS_FILE: Final = "attempts.json"
_CHECK_SECONDS: Final = 5.0
"""Seconds between two checks of the time at which the vault locks itself. Timers do not count sleep of the machine."""
_RELEASED: Final = -1

Record = Callable[[str], None]
log = logging.getLogger(__name__)


def open_slot(slots: SlotFile, attempts: AttemptLog, secret: Secret) -> SecretPage:
    """Return a page with the master key. Takes most of a second: call it in a thread.

    Raises:
        PassphraseDelayed: the attempt comes too early; nothing was tried.
        WrongPassphrase: the secret opens no slot.
        Overloaded: there is not enough memory for argon2id. The attempt does not count.
    """
    attempts.begin()
    page = SecretPage.create()
    try:
        if not any(slots.open(slot, secret, page.pointer) for slot in slots.of_kind(PASSPHRASE)):
            raise WrongPassphrase
    except BaseException as error:
        page.wipe()
        if isinstance(error, Overloaded):
            attempts.undo()
        raise
    attempts.succeed()
    page.mark_filled()
    return page


class KeyLock:
    """Lock of a key store. One change is made at a time.

    Args:
        folder: the directory of the vault.
        store: its key store, not yet open.
        keep: has the supervisor keep a descriptor for the next vault; -1 releases the one that it has.
        record: writes an event to the audit log.
        clock: return Unix time in seconds.
        cost: cost of argon2id for new passphrases.
    """

    def __init__(
        self,
        folder: Path,
        store: KeyStore,
        memory: LockedMemory,
        *,
        keep: Callable[[int], None] = lambda _: None,
        record: Record = lambda _: None,
        clock: Callable[[], float] = time.time,
        cost: Argon2Cost = PRODUCT_COST,
    ) -> None:
        self._store = store
        self._memory = memory
        self._slots = SlotFile(folder, memory)
        self._attempts = AttemptLog(folder / ATTEMPTS_FILE, clock)
        self._keep = keep
        self._record = record
        self._clock = clock
        self._cost = cost
        self._page: SecretPage | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = asyncio.Lock()
        self._changing = False

    def open(self, kept: int | None = None) -> None:
        """Open the store: locked if its keys are sealed, unless ``kept`` is a page with the master key.

        Raises:
            HomeUnusable: a file cannot be used.
            StorageFailed: the transport key could not be written.
        """
        self._slots.load()
        self._attempts.load()
        self._store.sealed = self._memory.hidden = self._slots.exists
        self._store.open()
        if kept is None:
            return
        page = SecretPage(kept)
        try:
            if self._slots.exists and page.is_filled:
                self._store.unlock(page.pointer)
                self._adopt(page)
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
            self._page.forget()

    # ── state ────────────────────────────────────────────────────────────────────────────────────

    def check_ready(self) -> None:
        """Check that no change of the key files is going on. Raises DaemonBusy."""
        if self._changing:
            raise DaemonBusy(actor="vault")

    def lock_state(self) -> LockState:
        """Return the state, for the gateway."""
        return LockState(self._slots.exists, self._store.is_locked, self._until)

    def status(self) -> VaultStatus:
        """Return the state, for the owner."""
        slots = tuple(SlotInfo(each.name, each.kind, each.created) for each in self._slots.listed)
        wait = self._attempts.wait()
        seconds = int(wait) + 1 if wait > 0 else 0
        return VaultStatus(
            self._slots.exists, self._store.is_locked, self._until, slots, seconds, self._store.count_identities()
        )

    @property
    def _until(self) -> int:
        """Unix time at which the vault locks itself; 0 for never."""
        deadline = 0 if self._page is None else self._page.deadline_ms
        return int(self._clock() + (deadline - boot_ms()) / 1000) if deadline else 0

    # ── changes ──────────────────────────────────────────────────────────────────────────────────

    async def unlock(self, descriptor: int, seconds: int) -> None:
        """Unlock the vault with the passphrase on the descriptor. If it is open, set the time at which it locks itself.

        Args:
            seconds: time until it locks itself; 0 for never.

        Raises:
            VaultNotEncrypted: there is no passphrase.
            InvalidPassphrase, PassphraseDelayed, WrongPassphrase, Overloaded: the vault is as it was.
            HomeUnusable, StorageFailed: a key file cannot be used; the vault is as it was.
        """
        async with self._busy:
            self._check_encrypted()
            page = await self._open_with(descriptor)
            try:
                if self._store.is_locked:
                    with self._change():
                        await asyncio.to_thread(self._store.unlock, page.pointer)
                    self._adopt(page)
                    self._keep(page.descriptor)
                elif self._page is not None:
                    page.wipe()
            except BaseException:
                page.wipe()
                raise
            if self._page is not None:
                self._page.deadline_ms = boot_ms() + 1000 * seconds if seconds else 0
                self._schedule()
            self._record("vault-unlocked")

    async def lock(self) -> None:
        """Wipe the identities' keys and the master key. The transport key stays, as the network process has it anyway.

        Raises:
            VaultNotEncrypted: there is no passphrase.
        """
        async with self._busy:
            self._check_encrypted()
            self._lock()

    async def set_passphrase(self, new: int, current: int | None) -> None:
        """Set the passphrase on the descriptor ``new``. Seal every key file, if they are not sealed.

        Raises:
            InvalidPassphrase: one of them is empty, too long or cannot be read, or the present one is missing.
            PassphraseDelayed, WrongPassphrase: the present one is not that of the vault.
            Overloaded: there is not enough memory for argon2id.
            HomeUnusable: a key file cannot be used. Nothing was changed.
            StorageFailed: a file could not be written. The next unlock finishes a change that had begun.
        """
        async with self._busy:
            if self._slots.exists:
                await self._change_passphrase(new, current)
            else:
                await self._encrypt(new)
            self._record("passphrase-set")

    async def _change_passphrase(self, new: int, current: int | None) -> None:
        if current is None:
            raise InvalidPassphrase(reason="the present passphrase is missing")
        page = await self._open_with(current)
        try:
            with Secret() as secret:
                await asyncio.to_thread(secret.read, new)
                await asyncio.to_thread(self._write_slot, secret, page)
        finally:
            page.wipe()

    async def _encrypt(self, new: int) -> None:
        page = SecretPage.create()
        lib.randombytes(page.pointer, KEY_BYTES)
        page.mark_filled()
        try:
            with Secret() as secret:
                await asyncio.to_thread(secret.read, new)
                with self._change():
                    await asyncio.to_thread(self._seal_files, secret, page)
        except BaseException:
            if self._slots.exists:  # the change has begun: what is left of it is finished at the next unlock
                self._store.lock()
            page.wipe()
            raise
        self._adopt(page)
        self._keep(page.descriptor)

    def _seal_files(self, secret: Secret, page: SecretPage) -> None:
        change = self._store.prepare_seal(page.pointer)
        try:
            self._write_slot(secret, page)
        except BaseException:
            change.abandon()
            raise
        self._store.complete_seal(change, page.pointer)

    def _write_slot(self, secret: Secret, page: SecretPage) -> None:
        """Write the slot of the passphrase, in place of the one before."""
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        self._slots.put(self._slots.make(PASSPHRASE, PASSPHRASE, secret, page.pointer, self._cost, created))

    async def _open_with(self, descriptor: int) -> SecretPage:
        with Secret() as secret:
            await asyncio.to_thread(secret.read, descriptor)
            try:
                return await asyncio.to_thread(open_slot, self._slots, self._attempts, secret)
            except WrongPassphrase:
                self._record("passphrase-wrong")
                raise

    def _check_encrypted(self) -> None:
        if not self._slots.exists:
            raise VaultNotEncrypted

    def _adopt(self, page: SecretPage) -> None:
        """Use the page whose master key the store uses."""
        self._page = page
        self._schedule()

    def _lock(self) -> None:
        self._store.lock()
        page, self._page = self._page, None
        if page is not None:
            page.wipe()
            self._record("vault-locked")
        self._keep(_RELEASED)
        self._schedule()

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

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Refuse other requests while a thread uses the key store."""
        self._changing = True
        try:
            yield
        finally:
            self._changing = False
