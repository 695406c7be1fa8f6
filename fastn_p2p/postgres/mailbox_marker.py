"""File in the workspace of a binding that names its mailbox in PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastn_p2p_actors.storage.atomic_files import write_atomically

_OWN: Final = "own"


def read_identity(file: Path) -> str:
    """Return the id of the mailbox that a workspace uses; empty if it uses none. Raises OSError."""
    try:
        return file.read_text("ascii").split()[0]
    except (FileNotFoundError, IndexError):
        return ""


def write_identity(file: Path, id: str, *, own: bool) -> None:
    """Store the id of the mailbox that a workspace uses from now on. Raises StorageFailed.

    Args:
        own: this binding has created it. What was in the database before is not deleted with the binding.
    """
    write_atomically(file, f"{id} {_OWN if own else 'found'}\n".encode())


def is_own(file: Path) -> bool:
    """Return whether this binding has created the mailbox that its workspace uses. Raises OSError."""
    return _OWN in file.read_text("ascii").split()
