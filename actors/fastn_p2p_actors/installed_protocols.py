"""Protocols that are installed: found by the entry point group ``fastn_p2p.protocols``.

Which there are is metadata, and can be asked anywhere. Loading one runs its code: only identity processes and
``fastn_p2p_actors.identity.one_shot_worker`` do.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from fastn_p2p_client.errors import ProtocolNotInstalled
from fastn_p2p_client.protocol import Protocol

from .runtime.site_packages import (
    forget_replaced,
    note_imported,
    refresh,
)

__all__ = ["GROUP", "check_installed", "installed", "installed_entry_points", "is_builtin", "load"]

GROUP: Final = "fastn_p2p.protocols"
_DAEMON: Final = "fastn_p2p.protocols."
"""The package of the protocols that come with the daemon."""


def installed() -> list[str]:
    """The names of all protocols, in order: those that are installed at this moment, as in all of these functions."""
    refresh()
    return sorted(set(entry_points(group=GROUP).names))


def installed_entry_points() -> list[EntryPoint]:
    """All that is installed, by name; of several with the same name, the first one is the one that is used."""
    refresh()
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def is_builtin(entry: EntryPoint) -> bool:
    """Whether it is the daemon's own code."""
    return entry.value.startswith(_DAEMON)


def check_installed(protocol: str) -> EntryPoint:
    """Where the protocol is.

    Raises:
        ProtocolNotInstalled: nowhere.
    """
    refresh()
    found = tuple(entry_points(group=GROUP, name=protocol))
    if not found:
        raise ProtocolNotInstalled(protocol=protocol, installed=installed())
    return found[0]


def load(protocol: str, code: str = "") -> type[Protocol]:
    """The protocol's class. Imports and so runs its module, which may raise anything.

    ``code`` is where it was when it was added, an entry point's value. As long as it is there, nothing is searched:
    searching costs 1.3 MB of memory in each process that does it. Code that was replaced since it was imported is
    imported anew.

    Raises:
        ProtocolNotInstalled: nothing is installed under that name.
        TypeError: what is installed under that name is no protocol.
    """
    refresh()
    cls = _at(protocol, code)
    if cls is None:
        entry = check_installed(protocol)
        cls = _imported(entry)
    if not (isinstance(cls, type) and issubclass(cls, Protocol)):
        raise TypeError(f"{cls!r} is not a subclass of fastn_p2p_client.protocol.Protocol")
    return cls


def _at(protocol: str, code: str) -> Any:
    """What is there, or None."""
    if code:
        with contextlib.suppress(ImportError, AttributeError):
            return _imported(EntryPoint(protocol, code, GROUP))
    return None


def _imported(entry: EntryPoint) -> Any:
    forget_replaced(entry.module)
    try:
        return entry.load()
    finally:
        note_imported(entry.module)
