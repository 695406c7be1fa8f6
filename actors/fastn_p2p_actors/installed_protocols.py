"""Installed protocols, found by the entry point group ``fastn_p2p.protocols``.

Their names are metadata: any process may read them. Loading a protocol runs its code. Only identity processes and
``fastn_p2p_actors.identity.one_shot_worker`` do that. Every function here sees what is installed at the moment, but
``indexed_code`` may be a second late.
"""

from __future__ import annotations

import contextlib
import time
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from fastn_p2p_client.errors import ProtocolNotInstalled
from fastn_p2p_client.protocol import Protocol

from .runtime.site_packages import note_imported, refresh, unload_replaced

GROUP: Final = "fastn_p2p.protocols"
_DAEMON: Final = "fastn_p2p.protocols."
"""Package of the protocols that come with the daemon."""
_INDEX_SECONDS: Final = 1.0
"""Seconds for which an index is used. A search takes 5 ms, and there may be ten thousand bindings."""

_index: tuple[float, dict[str, str]] = 0.0, {}
"""Monotonic time until which it is used, and the code of each installed protocol."""

WORKERS: Final = "fastn_p2p.protocols.workers.protocol:Workers"
"""Code of bindings that workers on other machines serve. It has no entry point, as any protocol may be served so."""


def installed() -> list[str]:
    """Return the names of all installed protocols, sorted."""
    refresh()
    return sorted(set(entry_points(group=GROUP).names))


def installed_entry_points() -> list[EntryPoint]:
    """Return every installed entry point, sorted by name. If several have the same name, the first one is used."""
    refresh()
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def is_builtin(code: str) -> bool:
    """Return whether the code of a protocol, ``module:name``, comes with the daemon."""
    return code.startswith(_DAEMON)


def indexed_code(protocol: str) -> str:
    """Return the code of a protocol, ``module:name``; empty if it was not installed a second ago."""
    global _index
    if time.monotonic() >= _index[0]:
        refresh()
        found = {entry.name: entry.value for entry in reversed(entry_points(group=GROUP))}
        _index = time.monotonic() + _INDEX_SECONDS, found
    return _index[1].get(protocol, "")


def check_installed(protocol: str) -> EntryPoint:
    """Return the entry point of the protocol.

    Raises:
        ProtocolNotInstalled: no installed package has it.
    """
    refresh()
    found = tuple(entry_points(group=GROUP, name=protocol))
    if not found:
        raise ProtocolNotInstalled(protocol=protocol, installed=installed())
    return found[0]


def load(protocol: str, code: str = "") -> type[Protocol]:
    """Return the protocol's class. This imports its module and so runs its code, which may raise anything.

    Args:
        protocol: name of the protocol.
        code: value of the entry point when the protocol was added. If the code is still there, no search is made: a
            search costs 1.3 MB of memory in each process that makes it.

    Code that was replaced since its import is imported again.

    Raises:
        ProtocolNotInstalled: no installed package has the name.
        TypeError: the entry point is no subclass of ``Protocol``.
    """
    refresh()
    cls = _load_at(protocol, code)
    if cls is None:
        entry = check_installed(protocol)
        cls = _import_entry(entry)
    if not (isinstance(cls, type) and issubclass(cls, Protocol)):
        raise TypeError(f"{cls!r} is not a subclass of fastn_p2p_client.protocol.Protocol")
    return cls


def _load_at(protocol: str, code: str) -> Any:
    """Return the object at ``code``, or None if there is none."""
    if code:
        with contextlib.suppress(ImportError, AttributeError):
            return _import_entry(EntryPoint(protocol, code, GROUP))
    return None


def _import_entry(entry: EntryPoint) -> Any:
    unload_replaced(entry.module)
    try:
        return entry.load()
    finally:
        note_imported(entry.module)
