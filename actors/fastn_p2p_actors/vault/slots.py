"""Slots: ways to open the master key, in one file beside the key files.

Each slot has the master key, sealed under a key that argon2id derives from the secret of the slot. So slots come and go
without a change of any key file. A slot of a kind that this version does not know stays as it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from fastn_p2p_client.errors import HomeUnusable, Overloaded, SlotExists, SlotNotFound
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.names import check_name

from ..storage.atomic_files import error_text, remove_file, write_atomically
from .locked_memory import LockedMemory
from .owner_messages import SlotKind
from .passphrase import Argon2Cost, Secret, derive, is_usable, new_salt, temporary_key
from .sealing import seal, unseal

FORMAT: Final = 1
FILE_NAME: Final = "slots.json"
MAX_SLOTS: Final = 16
"""Slots of a vault. Each passphrase among them costs an attempt most of a second."""
MAX_FILE: Final = 256 * 1024
"""Bytes of the file."""


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slot on disk. Binary fields are hexadecimal."""

    name: str
    kind: str
    created: str
    """UTC, ISO 8601."""
    sealed: str = ""
    """The master key, sealed under the slot's key."""
    passes: int = 0
    memory: int = 0
    salt: str = ""
    """Cost and salt of argon2id."""

    @property
    def cost(self) -> Argon2Cost:
        return Argon2Cost(self.passes, self.memory)

    @property
    def header(self) -> bytes:
        """Return what the seal binds: a changed parameter does not open the slot."""
        return msgspec.json.encode([FORMAT, self.name, self.kind, self.passes, self.memory, self.salt])


class _File(msgspec.Struct):
    format: int
    slots: list[dict[str, Any]] = []


class SlotFile:
    """Slots of a vault, in the order in which they were added.

    Attributes:
        exists: True if the vault's keys are sealed.
    """

    def __init__(self, folder: Path, memory: LockedMemory) -> None:
        self._path = folder / FILE_NAME
        self._memory = memory
        self._raw: list[dict[str, Any]] = []
        self.exists = False

    def load(self) -> None:
        """Read the file, if there is one.

        Raises:
            HomeUnusable: it is damaged, open to others, or of a newer version.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            self._raw, self.exists = [], False
            return
        except OSError as error:
            raise HomeUnusable(path=str(self._path), reason=error_text(error)) from None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise HomeUnusable(path=str(self._path), reason="it is not a regular file")
            if found.st_uid != os.geteuid():
                raise HomeUnusable(path=str(self._path), reason=f"it belongs to user {found.st_uid}")
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise HomeUnusable(path=str(self._path), reason=f"others can get at it; run: chmod go= {self._path}")
            data = file.read(MAX_FILE + 1)
        try:
            content = msgspec.json.decode(data, type=_File)
        except UNDECODABLE as error:
            raise HomeUnusable(path=str(self._path), reason=f"it is damaged: {error}") from None
        if content.format != FORMAT:
            reason = f"format {content.format}, of a newer version of fastn-p2p. Upgrade this one"
            raise HomeUnusable(path=str(self._path), reason=reason)
        if not content.slots:
            raise HomeUnusable(path=str(self._path), reason="it is damaged: it has no slot")
        self._raw, self.exists = content.slots, True

    @property
    def known(self) -> list[Slot]:
        """Slots of kinds that this version knows."""
        return [slot for slot in map(_read, self._raw) if slot is not None and slot.kind in _KINDS]

    @property
    def listed(self) -> list[Slot]:
        """Every slot, for people: one that this version cannot read has what is legible."""
        return [
            _read(raw) or Slot(str(raw.get("name", "?"))[:64], str(raw.get("kind", "?"))[:64], "") for raw in self._raw
        ]

    def of_kind(self, *kinds: SlotKind) -> list[Slot]:
        """Return the slots of these kinds."""
        return [slot for slot in self.known if slot.kind in kinds]

    def find(self, name: str) -> Slot:
        """Return the slot of this name, as ``listed`` has it. Raises SlotNotFound."""
        found = next((slot for slot in self.listed if slot.name == name), None)
        if found is None:
            raise SlotNotFound(slot=name)
        return found

    def check_new(self, name: str) -> str:
        """Return the name of a new slot.

        Raises:
            InvalidName: it is no name of a slot.
            SlotExists: there is a slot of this name.
            Overloaded: there are as many as there may be.
        """
        check_name(name, "a slot")
        if any(slot.name == name for slot in self.listed):
            raise SlotExists(slot=name)
        if len(self._raw) >= MAX_SLOTS:
            raise Overloaded(what="slots of the vault", limit=MAX_SLOTS)
        return name

    def free_name(self, kind: SlotKind) -> str:
        """Return a name for a new slot of this kind: the kind itself, or with a number behind it."""
        taken = {slot.name for slot in self.listed}
        names = [kind.value, *(f"{kind.value}-{number}" for number in range(2, MAX_SLOTS + 2))]
        return next(name for name in names if name not in taken)

    def make(self, name: str, kind: SlotKind, secret: Secret, master: Any, cost: Argon2Cost, created: str) -> Slot:
        """Return a new slot for the master key. Takes what argon2id costs: call it in a thread.

        Raises:
            Overloaded: there is not enough memory for argon2id.
        """
        slot = Slot(name, kind.value, created, passes=cost.passes, memory=cost.memory, salt=new_salt().hex())
        with temporary_key(self._memory) as key:
            self._derive(key, slot, secret)
            sealed = seal(self._memory, key, slot.header, master).hex()
        return msgspec.structs.replace(slot, sealed=sealed)

    def open(self, slot: Slot, secret: Secret, target: Any) -> bool:
        """Write the master key to ``target`` if the secret opens the slot. Takes what argon2id costs.

        Raises:
            Overloaded: there is not enough memory for argon2id.
        """
        try:
            sealed = bytes.fromhex(slot.sealed)
            if not is_usable(slot.cost, bytes.fromhex(slot.salt)):
                return False
        except ValueError:
            return False
        with temporary_key(self._memory) as key:
            self._derive(key, slot, secret)
            return unseal(self._memory, key, slot.header, sealed, target)

    def put(self, slot: Slot, *, instead_of: Collection[str] = ()) -> None:
        """Add the slot, in place of those with these names. On disk when this returns.

        Raises:
            StorageFailed: nothing was changed.
        """
        kept = [raw for raw in self._raw if raw.get("name") not in instead_of]
        self._write([*kept, msgspec.to_builtins(slot)])

    def remove(self, name: str) -> None:
        """Remove the slot, which is not the last one. On disk when this returns.

        Raises:
            StorageFailed: nothing was changed.
        """
        self._write([raw for raw in self._raw if raw.get("name") != name])

    def delete(self) -> None:
        """Delete the file: no key is sealed any more. On disk when this returns.

        Raises:
            StorageFailed: nothing was changed.
        """
        remove_file(self._path)
        self._raw, self.exists = [], False

    def _write(self, slots: list[dict[str, Any]]) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(_File(FORMAT, slots)), indent=1) + b"\n")
        self._raw, self.exists = slots, True

    def _derive(self, target: Any, slot: Slot, secret: Secret) -> None:
        derive(target, secret, slot.cost, bytes.fromhex(slot.salt))


_KINDS: Final = frozenset(SlotKind)


def _read(raw: dict[str, Any]) -> Slot | None:
    try:
        return msgspec.convert(raw, Slot)
    except msgspec.ValidationError:
        return None
