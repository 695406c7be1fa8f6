"""Changes of the slots: the first passphrase, further slots, and the way back to keys in the clear.

Each change of a vault that has slots needs the secret of a slot. The vault opens the master key with it, whether it is
locked or not, so a change of the slots neither unlocks nor locks it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from fastn_p2p_actors.credentials.sodium import lib
from fastn_p2p_client.errors import InvalidPassphrase, LastSlot, VaultNotEncrypted

from .key_lock import KeyLock, Record
from .key_store import KeyStore
from .owner_messages import KEY_KINDS, SlotKind
from .passphrase import KEY_COST, PRODUCT_COST, Argon2Cost, Secret
from .sealing import KEY_BYTES
from .secret_forms import KEY_DIGITS, RECOVERY_WORDS, copy_recovery_code, is_key
from .secret_page import SecretPage
from .slots import Slot

_MISSING: Final = "that of a slot which the vault has is missing"


class SlotChanges:
    """Changes of the slots of a vault, one at a time. Descriptors deliver the secrets.

    Args:
        record: writes an event to the audit log.
        clock: return Unix time in seconds.
        cost: cost of argon2id for new passphrases and recovery codes.
    """

    def __init__(
        self,
        lock: KeyLock,
        store: KeyStore,
        *,
        record: Record = lambda _event, _fields: None,
        clock: Callable[[], float] = time.time,
        cost: Argon2Cost = PRODUCT_COST,
    ) -> None:
        self._lock = lock
        self._store = store
        self._slots = lock.slots
        self._record = record
        self._clock = clock
        self._cost = cost

    async def check(self, descriptor: int) -> None:
        """Check that the secret opens a slot.

        Raises:
            VaultNotEncrypted: there is no slot.
            InvalidPassphrase, PassphraseDelayed, WrongPassphrase, Overloaded: it opens none.
        """
        async with self._lock.busy:
            (await self._lock.open_with(descriptor)).page.wipe()

    async def set_passphrase(self, new: int, present: int | None) -> None:
        """Set the passphrase. Seal every key file, if they are not sealed.

        If the secret ``present`` is a passphrase, the new one takes its place; otherwise that of the first passphrase.

        Raises:
            InvalidPassphrase: one of them is empty, too long or cannot be read, or the present one is missing.
            PassphraseDelayed, WrongPassphrase: the present one opens no slot.
            Overloaded: there is not enough memory for argon2id.
            HomeUnusable: a key file cannot be used. Nothing was changed.
            StorageFailed: a file could not be written. The next unlock finishes a change that had begun.
        """
        async with self._lock.busy:
            if not self._slots.exists:
                await self._encrypt(SlotKind.PASSPHRASE.value, new)
            else:
                page, opened = await self._open_with(present)
                try:
                    old = [opened] if opened.kind == SlotKind.PASSPHRASE else self._slots.of_kind(SlotKind.PASSPHRASE)
                    name = old[0].name if old else self._slots.free_name(SlotKind.PASSPHRASE)
                    await self._put(SlotKind.PASSPHRASE, name, new, page, instead_of={name})
                finally:
                    page.wipe()
            self._record("passphrase-set", {})

    async def add(self, kind: SlotKind, name: str, new: int, present: int | None, *, replace: bool = False) -> None:
        """Add a slot. The first one of a vault is a passphrase, and seals every key file.

        Args:
            name: its name; empty for one that is free.
            replace: replace the slots of this kind, instead of adding one.

        Raises:
            InvalidName, SlotExists: the name cannot be used.
            VaultNotEncrypted: there is no passphrase yet.
            P2PError: as for ``set_passphrase``. Nothing was changed.
        """
        async with self._lock.busy:
            if not self._slots.exists:
                if kind is not SlotKind.PASSPHRASE:
                    raise VaultNotEncrypted
                name = self._slots.check_new(name or kind.value)
                await self._encrypt(name, new)
            else:
                old = [slot.name for slot in self._slots.of_kind(kind)] if replace else []
                name = old[0] if old else self._slots.check_new(name or self._slots.free_name(kind))
                page, _ = await self._open_with(present)
                try:
                    await self._put(kind, name, new, page, instead_of=set(old))
                finally:
                    page.wipe()
            self._record("slot-added", {"slot": name, "kind": kind.value})

    async def remove(self, name: str, secret: int, *, decrypt: bool = False) -> None:
        """Remove a slot. The secret shows that another slot can still be opened.

        Args:
            decrypt: remove it even if it is the last one, opened by ``secret``. Then the keys are in the clear.

        Raises:
            SlotNotFound: there is none of this name.
            LastSlot: it is the last one.
            InvalidPassphrase: the secret cannot be read, or it opens the slot that would be removed.
            VaultNotEncrypted, PassphraseDelayed, WrongPassphrase, Overloaded: nothing was changed.
            HomeUnusable: the keys cannot be decrypted, because a file cannot be used. Nothing was changed.
            StorageFailed: a file could not be written. If keys were decrypted, the next unlock encrypts them again.
        """
        async with self._lock.busy:
            self._lock.check_encrypted()
            slot = self._slots.find(name)
            is_last = len(self._slots.listed) == 1
            if is_last and not decrypt:
                raise LastSlot(slot=name)
            page, opened = await self._open_with(secret)
            try:
                if is_last:
                    await self._decrypt(page)
                elif opened.name == name:
                    raise InvalidPassphrase(reason=f"it opens {name} itself, and must open another slot")
                else:
                    await asyncio.to_thread(self._slots.remove, name)
            finally:
                page.wipe()
            self._record("keys-decrypted" if is_last else "slot-removed", {"slot": name, "kind": slot.kind})

    # ── the key files ────────────────────────────────────────────────────────────────────────────

    async def _encrypt(self, name: str, new: int) -> None:
        """Seal every key file under a new master key, with a passphrase as the first slot."""
        page = SecretPage.create()
        lib.randombytes(page.pointer, KEY_BYTES)
        page.mark_filled()
        try:
            with Secret() as secret:
                await asyncio.to_thread(secret.read, new)
                with self._lock.change():
                    await asyncio.to_thread(self._seal_files, name, secret, page)
        except BaseException:
            if self._slots.exists:  # the change has begun: what is left of it is finished at the next unlock
                self._store.lock()
            page.wipe()
            raise
        self._lock.adopt(page)

    def _seal_files(self, name: str, secret: Secret, page: SecretPage) -> None:
        change = self._store.prepare_seal(page.pointer)
        try:
            self._slots.put(self._make(SlotKind.PASSPHRASE, name, secret, page))
        except BaseException:
            change.abandon()
            raise
        self._store.complete_seal(change, page.pointer)

    async def _decrypt(self, page: SecretPage) -> None:
        """Write every key in the clear, then delete the slots. Until then, the next unlock encrypts all keys again."""
        with self._lock.change():
            await asyncio.to_thread(self._unseal_files, page)
        self._lock.release()

    def _unseal_files(self, page: SecretPage) -> None:
        if self._store.is_locked:
            self._store.unlock(page.pointer)
            opened = True
        else:
            opened = False
        try:
            self._store.write_unsealed()
            self._slots.delete()
        except BaseException:
            if opened:
                self._store.lock()
            raise
        self._store.discard_master()

    # ── slots ────────────────────────────────────────────────────────────────────────────────────

    async def _open_with(self, descriptor: int | None) -> tuple[SecretPage, Slot]:
        if descriptor is None:
            raise InvalidPassphrase(reason=_MISSING)
        return await self._lock.open_with(descriptor)

    async def _put(self, kind: SlotKind, name: str, new: int, page: SecretPage, *, instead_of: set[str]) -> None:
        with ExitStack() as stack:
            secret = stack.enter_context(Secret())
            await asyncio.to_thread(secret.read, new)
            if kind in KEY_KINDS and not is_key(secret):
                raise InvalidPassphrase(reason=f"the key of such a slot has {KEY_DIGITS} hexadecimal digits")
            if kind is SlotKind.RECOVERY_CODE:
                typed, secret = secret, stack.enter_context(Secret())
                if not copy_recovery_code(typed, secret):
                    raise InvalidPassphrase(reason=f"a recovery code has {RECOVERY_WORDS} words")
            slot = await asyncio.to_thread(self._make, kind, name, secret, page)
            await asyncio.to_thread(self._slots.put, slot, instead_of=instead_of)

    def _make(self, kind: SlotKind, name: str, secret: Secret, page: SecretPage) -> Slot:
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        cost = KEY_COST if kind in KEY_KINDS else self._cost
        return self._slots.make(name, kind, secret, page.pointer, cost, created)
