"""Risks of a file under the name that a peer has chosen for it: hidden, executable, or odd.

``path_names`` refuses names that no file may have. A name that it accepts can still do harm: a dot file configures a
shell, and ``.git/hooks`` and ``.desktop`` files are executed. Such files are flagged, and are written only if the
receiver has accepted them by name. Every place that writes a file under a peer's name calls ``risks_of``: the inbox of
``FileTransfer``, ``files get``, and ``mail read --save``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Final, Literal, TypeAlias

Risk: TypeAlias = Literal["hidden", "executable", "odd"]
"""``hidden``: a component of the path begins with a dot. ``executable``: the mode or the extension says that it is a
program. ``odd``: another system reads the name as something else, or a person cannot see all of it."""

_PROGRAM_EXTENSIONS: Final = frozenset(
    (
        *("appimage", "application", "bash", "command", "desktop", "jar", "run", "service", "sh", "workflow"),
        *("bat", "cmd", "com", "cpl", "exe", "gadget", "hta", "inf", "ins", "jse", "js", "lnk", "msc", "msi", "msp"),
        *("mst", "pif", "ps1", "psm1", "reg", "scf", "scr", "sct", "shb", "sys", "url", "vb", "vbe", "vbs", "ws"),
        *("wsc", "wsf", "wsh"),
    )
)
"""File extensions that a desktop runs or installs on a double click, whatever the mode."""
_DEVICES: Final = frozenset(
    (
        "con",
        "prn",
        "aux",
        "nul",
        "conin$",
        "conout$",
        *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³"),
    )
)
"""Names of devices on Windows, in every directory and with every extension."""


def risks_of(path: str, mode: int = 0, *, directory: bool = False) -> list[Risk]:
    """Return the risks of writing a file or directory under this path; usually none.

    Args:
        path: components with ``/`` between them.
        mode: permission bits. The x bits of a directory are no risk.
    """
    parts = path.split("/")
    found: list[Risk] = []
    if any(part.startswith(".") for part in parts):
        found.append("hidden")
    _, dot, extension = parts[-1].rstrip(". ").rpartition(".")
    if not directory and (mode & 0o111 or (dot and extension.casefold() in _PROGRAM_EXTENSIONS)):
        found.append("executable")
    if any(map(_is_suspicious, parts)):
        found.append("odd")
    return found


def is_named(path: str, names: Collection[str]) -> bool:
    """Return whether the path, or a directory above it, is one of the names."""
    if not names:
        return False
    parts = path.split("/")
    return any("/".join(parts[: end + 1]) in names for end in range(len(parts)))


def _is_suspicious(part: str) -> bool:
    if part[-1:] in (".", " ") or part[:1] == " " or part.partition(".")[0].rstrip(" ").casefold() in _DEVICES:
        return True
    return not part.isascii() and any(unicodedata.category(each) in ("Cf", "Co") for each in part)
