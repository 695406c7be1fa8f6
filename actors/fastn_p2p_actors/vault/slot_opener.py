"""Opener of slots: tries a secret at each slot that its form fits, and slows down wrong ones over all slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fastn_p2p_client.errors import Overloaded, WrongPassphrase

from .attempts import AttemptLog
from .owner_messages import KEY_KINDS, SlotKind
from .passphrase import Secret
from .secret_forms import copy_recovery_code, is_key
from .secret_page import SecretPage
from .slots import Slot, SlotFile


class OpenedSlot(NamedTuple):
    page: SecretPage
    """Page with the master key. The caller wipes it."""
    slot: Slot
    """Slot that the secret has opened."""


class SlotOpener:
    """Opens the slots of one vault. Each method takes what argon2id costs, so call it in a thread.

    Args:
        attempts: count of wrong secrets in a row.
    """

    def __init__(self, slots: SlotFile, attempts: AttemptLog) -> None:
        self._slots = slots
        self._attempts = attempts

    def open(self, secret: Secret) -> OpenedSlot:
        """Return a page with the master key, opened by a secret that the owner has given.

        Raises:
            PassphraseDelayed: the attempt comes too early; nothing was tried.
            WrongPassphrase: the secret opens no slot.
            Overloaded: there is not enough memory for argon2id. The attempt does not count.
        """
        self._attempts.begin()
        try:
            opened = self._try(secret, machine=False)
        except Overloaded:
            self._attempts.undo()
            raise
        self._attempts.succeed()
        return opened

    def open_by_machine(self, secret: Secret) -> OpenedSlot:
        """Return a page with the master key, opened by a random key that a machine keeps.

        Nobody guesses such a key, so the attempt neither counts nor has to wait for wrong passphrases.

        Raises:
            WrongPassphrase: the secret is no such key, or opens no slot.
        """
        return self._try(secret, machine=True)

    def _try(self, secret: Secret, *, machine: bool) -> OpenedSlot:
        page = SecretPage.create()
        try:
            with Secret() as code:
                for slot, spelling in self._candidates(secret, code, machine=machine):
                    if self._slots.open(slot, spelling, page.pointer):
                        page.mark_filled()
                        return OpenedSlot(page, slot)
            raise WrongPassphrase
        except BaseException:
            page.wipe()
            raise

    def _candidates(self, secret: Secret, code: Secret, *, machine: bool) -> Iterator[tuple[Slot, Secret]]:
        """Yield the slots that the secret may open, with its spelling for each."""
        if is_key(secret):
            for slot in self._slots.of_kind(*KEY_KINDS):
                yield slot, secret
        if machine:
            return
        if copy_recovery_code(secret, code):
            for slot in self._slots.of_kind(SlotKind.RECOVERY_CODE):
                yield slot, code
        for slot in self._slots.of_kind(SlotKind.PASSPHRASE):
            yield slot, secret
