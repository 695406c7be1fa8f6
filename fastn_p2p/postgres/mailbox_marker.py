"""File in the workspace of a binding that names its mailbox in PostgreSQL.

The first line is for the binding: the id of the mailbox, and whether the binding has created it. The second one is for
people: the daemon shows it when a workspace is deleted without its protocol's code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastn_p2p_actors.storage.atomic_files import write_atomically

_OWN: Final = "own"


def read_identity(file: Path) -> str:
    """Return the id of the mailbox that a workspace uses; empty if it uses none. Raises OSError."""
    try:
        return file.read_text().split()[0]
    except (FileNotFoundError, IndexError):
        return ""


def write_identity(file: Path, id: str, location: str, *, own: bool) -> None:
    """Store the id of the mailbox that a workspace uses from now on. Raises StorageFailed.

    Args:
        location: schema and database.
        own: this binding has created it. What was in the database before is not deleted with the binding.
    """
    write_atomically(file, f"{id} {_OWN if own else 'found'}\n{location}\n".encode())


def is_own(file: Path) -> bool:
    """Return whether this binding has created the mailbox that its workspace uses. Raises OSError."""
    return file.read_text().split()[1:2] == [_OWN]
