"""Journal of a restore: a directory beside the identities, so that a crash leaves all of a restore or nothing.

::

    identities/.restore-<random>/<name>/   a new identity with its bindings, complete
    identities/.restore-<random>/plan.json the plan: what follows, and whether every key is in the vault

Once the plan is committed, a restart of the gateway completes the restore; before, it undoes it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import StorageFailed

from ..storage.atomic_files import error_text, make_directory, remove_tree, sync_directory, write_atomically
from ..storage.identity_store import IdentityStore
from ..storage.permission_store import PermissionStore
from .restore_plan import RestorePlan

_PREFIX: Final = ".restore-"
_PLAN: Final = "plan.json"


class RestoreJournal:
    """Journal of one restore.

    Attributes:
        plan: its plan.
    """

    def __init__(self, path: Path, plan: RestorePlan) -> None:
        self._path = path
        self.plan = plan

    @classmethod
    def create(cls, root: Path, plan: RestorePlan) -> RestoreJournal:
        """Write the identities of a plan, and the plan, below ``root``. Raises StorageFailed: nothing is left."""
        journal = cls(root / f"{_PREFIX}{secrets.token_hex(8)}", plan)
        try:
            make_directory(journal._path)
            staged = IdentityStore.at(journal._path)
            for planned in plan.identities:
                staged.create_identity(planned.identity)
                for binding in planned.bindings:
                    staged.prepare_binding(planned.identity.name, binding).commit()
                PermissionStore.at(journal._path).write(planned.identity.name, planned.permissions)
            journal._write()
        except BaseException:
            journal.delete()
            raise
        return journal

    @classmethod
    def find(cls, root: Path) -> Iterator[RestoreJournal]:
        """Yield the journals that an interrupted gateway has left. Delete those that had not begun."""
        for path in sorted(root.glob(f"{_PREFIX}*")):
            try:
                yield cls(path, msgspec.json.decode((path / _PLAN).read_bytes(), type=RestorePlan))
            except (OSError, msgspec.MsgspecError, ValueError):
                remove_tree(path, root)

    def commit(self) -> None:
        """Say that every key is in the vault. Raises StorageFailed."""
        self.plan.committed = True
        try:
            self._write()
        except BaseException:
            self.plan.committed = False
            raise

    def move(self, name: str) -> None:
        """Let an identity exist. May be repeated. Raises StorageFailed."""
        source, target = self._path / name, self._path.parent / name
        if not source.exists():
            return
        try:
            source.rename(target)
            sync_directory(target.parent)
        except OSError as error:
            raise StorageFailed(path=str(target), reason=error_text(error)) from None

    def delete(self) -> None:
        """Delete the journal. Raises StorageFailed."""
        if os.path.lexists(self._path):
            remove_tree(self._path, self._path.parent)

    def _write(self) -> None:
        write_atomically(self._path / _PLAN, msgspec.json.format(msgspec.json.encode(self.plan)))
