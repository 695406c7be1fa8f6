"""File names and paths that a peer sends: which of them are safe, and how they are compared and printed.

A path on the wire is text: components with ``/`` between them, relative to the shared directory. A path is never
cleaned up: it is accepted as it is, or refused.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_PART: Final = 255
"""Bytes of UTF-8 in one component, as Linux allows (NAME_MAX)."""
MAX_PATH: Final = 4096
"""Bytes of UTF-8 in a whole path (PATH_MAX)."""
MAX_DEPTH: Final = 64
"""Components in a path."""
PARTIAL_PREFIX: Final = ".fastn-"
"""First characters of the names of incomplete files; no other file can have such a name."""

_ORDINARY: Final = re.compile(r"[ -\-0-\[\]-~][ -.0-\[\]-~]{0,254}")
"""Names that are safe without a closer look: ASCII, without a dot at the beginning."""
_BAD_CATEGORIES: Final = ("Cc", "Cs", "Zl", "Zp")
_DIRECTION: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text: ``exe.gpj`` would be shown as ``jpg.exe``."""


class UnsafeName(ValueError):
    """A name or path that must not be used on this machine; the message says why."""


def check_component(name: str) -> str:
    """Return ``name`` if a file or directory may have it.

    Raises:
        UnsafeName: it may not.
    """
    reason = _rejection_reason(name)
    if reason:
        raise UnsafeName(f"'{printable(name[:MAX_PART])}' is not a safe name: {reason}")
    return name


def is_safe(name: str) -> bool:
    """Return whether ``check_component`` accepts the name."""
    return not _rejection_reason(name)


def split_path(path: str) -> tuple[str, ...]:
    """Return the components of a path from the wire; none for the empty path, which is the shared directory itself.

    Raises:
        UnsafeName: a component is not safe, or there are more than ``MAX_DEPTH`` components or ``MAX_PATH`` bytes.
    """
    if not path:
        return ()
    if len(path) > MAX_PATH or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        raise UnsafeName(f"a path has more than {MAX_PATH} bytes")
    parts = tuple(path.split("/"))
    if len(parts) > MAX_DEPTH:
        raise UnsafeName(f"a path has more than {MAX_DEPTH} parts")
    return tuple(map(check_component, parts))


def join_path(*paths: str) -> str:
    """Join paths with ``/``, leaving out empty ones."""
    return "/".join(filter(None, paths))


def collision_key(path: str) -> str:
    """Return a key that is equal for paths that a file system or a person may take for the same.

    Such paths differ only by case or by how Unicode spells a letter.
    """
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def printable(name: str) -> str:
    """Return a local file name as text that can be sent and printed, whatever bytes it has."""
    return "".join(each if each.isprintable() else _escape(each) for each in name)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's code for a byte that is not UTF-8 (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _rejection_reason(name: str) -> str:
    """Return why the name is not safe, or an empty text."""
    if _ORDINARY.fullmatch(name):
        return ""
    if name in ("", ".", ".."):
        return "it is empty or a reference to a directory"
    if "/" in name or "\\" in name:
        return "it has a character that separates directories"
    if name.startswith(PARTIAL_PREFIX):
        return "such names are reserved for unfinished transfers"
    if name.isascii() and name.isprintable():
        return "it is too long" if len(name) > MAX_PART else ""
    if any(unicodedata.category(each) in _BAD_CATEGORIES or each in _DIRECTION for each in name):
        is_text = not any("\ud800" <= each <= "\udfff" for each in name)
        return "it has a control character" if is_text else "its bytes are not UTF-8"
    return "it is too long" if len(name.encode()) > MAX_PART else ""
