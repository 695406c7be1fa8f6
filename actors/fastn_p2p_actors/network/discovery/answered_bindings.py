"""Answered bindings: which daemon has answered a call to which binding.

A daemon that has answered one serves the binding. Until then it may refuse the call, so that another daemon must get
it, and large payloads are kept for that.
"""

from __future__ import annotations

from typing import Final

_MOST_DAEMONS: Final = 1024
"""Pairs of identity and daemon that are remembered. One more replaces the oldest."""
_MOST_BINDINGS: Final = 64
"""Bindings of each."""


class AnsweredBindings:
    """Bindings that daemons have served, by identity and endpoint."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], set[tuple[str, str]]] = {}

    def add(self, identity: bytes, endpoint: bytes, protocol: str, instance: str) -> None:
        """Remember that the daemon at an endpoint serves a binding."""
        bindings = self._known.setdefault((identity, endpoint), set())
        if len(bindings) < _MOST_BINDINGS:
            bindings.add((protocol, instance))
        if len(self._known) > _MOST_DAEMONS:
            del self._known[next(iter(self._known))]

    def discard(self, identity: bytes, endpoint: bytes) -> None:
        """Forget what a daemon serves: it has refused a call."""
        self._known.pop((identity, endpoint), None)

    def includes(self, identity: bytes, endpoint: bytes, protocol: str, instance: str) -> bool:
        """Return whether a daemon has served a binding, and has refused no call since."""
        return (protocol, instance) in self._known.get((identity, endpoint), ())
