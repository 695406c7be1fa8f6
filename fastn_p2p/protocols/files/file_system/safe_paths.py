"""Paths of a transfer, checked by the rules of ``_shared.path_names``; an unsafe one raises ``FileError``."""

from __future__ import annotations

from ..._shared.path_names import UnsafeName, check_component, split_path
from ..errors import FileError


def parts_of(path: str) -> tuple[str, ...]:
    """Return the components of a path from the wire; none for the empty path, which is the shared directory itself.

    Raises:
        FileError: ``UnsafeName``.
    """
    try:
        return split_path(path)
    except UnsafeName as error:
        raise FileError("UnsafeName", str(error)) from None


def checked_name(name: str) -> str:
    """Return ``name`` if a file or directory may have it.

    Raises:
        FileError: ``UnsafeName``.
    """
    try:
        return check_component(name)
    except UnsafeName as error:
        raise FileError("UnsafeName", str(error)) from None
