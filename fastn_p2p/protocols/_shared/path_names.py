"""Names from a peer, and what of them is let near a file system.

A path on the wire is text: parts with ``/`` between them, relative to what is shared. It is never cleaned up, only
taken or refused.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ..files.errors import FileError

__all__ = [
    "MAX_DEPTH",
    "MAX_PART",
    "MAX_PATH",
    "PARTIAL_PREFIX",
    "check_component",
    "collision_key",
    "is_safe",
    "join_path",
    "parts_of",
    "printable",
]

MAX_PART: Final = 255
"""Bytes of UTF-8 in one part: what Linux takes (NAME_MAX)."""
MAX_PATH: Final = 4096
"""Bytes of UTF-8 in a whole path (PATH_MAX)."""
MAX_DEPTH: Final = 64
"""Parts in a path."""
PARTIAL_PREFIX: Final = ".fastn-"
"""How the names of files begin that have not arrived completely; no other file can have such a name."""

_ORDINARY: Final = re.compile(r"[ -\-0-\[\]-~][ -.0-\[\]-~]{0,254}")
"""What needs no closer look: ASCII without a dot at the beginning."""
_BAD_CATEGORIES: Final = ("Cc", "Cs", "Zl", "Zp")
_DIRECTION: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the text around: ``exe.gpj`` would be shown as ``jpg.exe``."""


def check_component(part: str) -> str:
    """``part``, when a file or directory may be called that.

    Raises:
        FileError: ``UnsafeName``.
    """
    reason = _objection(part)
    if reason:
        raise FileError("UnsafeName", f"'{printable(part[:MAX_PART])}' is not a safe name: {reason}")
    return part


def is_safe(part: str) -> bool:
    """Whether ``check_component`` takes it."""
    return not _objection(part)


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path from the wire; none for the empty path, which is the shared directory itself.

    Raises:
        FileError: ``UnsafeName``.
    """
    if not path:
        return ()
    if len(path) > MAX_PATH or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        raise FileError("UnsafeName", f"a path has more than {MAX_PATH} bytes")
    parts = tuple(path.split("/"))
    if len(parts) > MAX_DEPTH:
        raise FileError("UnsafeName", f"a path has more than {MAX_DEPTH} parts")
    return tuple(map(check_component, parts))


def join_path(*paths: str) -> str:
    """One path of several, of which some may be empty."""
    return "/".join(filter(None, paths))


def collision_key(path: str) -> str:
    """Equal for paths that some file system or person takes for the same: other case, other spelling of a letter."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def printable(name: str) -> str:
    """A name of this machine as text that can be sent and printed, whatever its bytes are."""
    return "".join(each if each.isprintable() else _escaped(each) for each in name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python says that a byte is no text
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _objection(part: str) -> str:
    if _ORDINARY.fullmatch(part):
        return ""
    if part in ("", ".", ".."):
        return "it is empty or a reference to a directory"
    if "/" in part or "\\" in part:
        return "it has a character that separates directories"
    if part.startswith(PARTIAL_PREFIX):
        return "such names are those of unfinished transfers"
    if part.isascii() and part.isprintable():
        return "it is too long" if len(part) > MAX_PART else ""
    if any(unicodedata.category(each) in _BAD_CATEGORIES or each in _DIRECTION for each in part):
        is_text = not any("\ud800" <= each <= "\udfff" for each in part)
        return "it has a control character" if is_text else "its bytes are no UTF-8"
    return "it is too long" if len(part.encode()) > MAX_PART else ""
