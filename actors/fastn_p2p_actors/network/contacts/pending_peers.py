"""Pending peers: strangers that an access list has refused, remembered for the owner to accept or block.

Problem: anybody can make any number of identities and be refused with each of them. Idea: the list has ``MAX_PENDING``
places. When it is full, the loudest network loses an entry, in it the loudest endpoint, and of that endpoint the entry
that was heard of longest ago. So a flood displaces its own entries, and a stranger from elsewhere stays. An entry has
no text of the peer: names of identity, protocol and instance are those of an own binding.

Cost: a lookup and a counter for an identity in the list. A new one in a full list looks at no more than ``MAX_PENDING``
entries. Not covered: an attacker with addresses in ``MAX_PENDING`` networks, who displaces older entries.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.ipc.messages import PendingPeer, WantedBinding
from fastn_p2p_client.keys import PublicKey, id52_of

from .lazy_file import LazyFile, load_file

log = logging.getLogger(__name__)

MAX_PENDING: Final = 100
"""Strangers that are remembered."""
MAX_WANTED: Final = 8
"""Bindings that are remembered of each. A further one replaces the one that was wanted longest ago."""
MAX_COUNT: Final = 1_000_000_000
"""Refusals above which an entry counts no further."""
SAVE_SECONDS: Final = 30.0
"""Seconds between a refusal and the write that contains it. A flood causes one write of about 60 KB in this time."""

Binding = tuple[str, str, str]
"""Identity, protocol and instance."""


class _Pending(msgspec.Struct):
    """Entry of the list. Times are Unix milliseconds."""

    id52: str
    endpoint: str
    network: str
    first_ms: int
    last_ms: int
    count: int = 0
    wanted: dict[str, int] = {}
    """``identity/protocol/instance`` to the number of refusals, the last one wanted at the end."""


class _File(msgspec.Struct):
    knocks: list[_Pending] = []


class PendingPeers:
    """List of strangers that were refused, kept in one file.

    Args:
        path: the file.
        now: returns Unix time.

    Attributes:
        revision: number that grows with each new entry and each removed one. Repeated refusals do not count, because
            the owner is not told of them.
        on_change: called when ``revision`` has grown.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._now = now
        self._file = LazyFile(path, self._encode, SAVE_SECONDS)
        self._path = path
        self._by_key: dict[bytes, _Pending] = {}
        """The one that was refused last is at the end."""
        self.revision = int(now() * 1000)  # another one after a restart
        self.on_change: Callable[[], object] = lambda: None

    def load(self) -> str:
        """Read the file. Return the reason why it cannot be used; empty if it can, or if there is none."""
        return load_file(self._path, _File, self._restore, " and not used")

    def _restore(self, saved: _File) -> None:
        self._by_key = {bytes(PublicKey(each.id52)): each for each in saved.knocks[-MAX_PENDING:]}

    def close(self) -> None:
        """Write what has changed."""
        self._file.save()

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._by_key

    def note(self, key: bytes, endpoint: bytes, network: str, binding: Binding) -> bool:
        """Remember one refusal, and return whether the stranger was not in the list.

        Args:
            key: identity of the stranger.
            endpoint: key of the endpoint through which it speaks.
            network: network of that endpoint's address; empty if it has none.
            binding: identity, protocol and instance that it was refused.
        """
        now = int(self._now() * 1000)
        pending = self._by_key.pop(key, None)
        is_new = pending is None
        if pending is None:
            if len(self._by_key) >= MAX_PENDING:
                del self._by_key[self._loudest()]
            pending = _Pending(id52_of(key), endpoint.hex(), network, now, now)
        self._by_key[key] = pending
        pending.last_ms = now
        pending.count = min(pending.count + 1, MAX_COUNT)
        name = "/".join(binding)
        times = pending.wanted.pop(name, 0)
        pending.wanted[name] = min(times + 1, MAX_COUNT)
        if len(pending.wanted) > MAX_WANTED:
            del pending.wanted[next(iter(pending.wanted))]
        self._file.changed()
        if is_new:
            self._changed()
        return is_new

    def _loudest(self) -> bytes:
        """Return the entry that makes room: the oldest of the loudest endpoint of the loudest network."""
        sources = {key: (each.network or each.endpoint, each.endpoint) for key, each in self._by_key.items()}
        networks = Counter(network for network, _ in sources.values())
        endpoints = Counter(sources.values())
        # max returns the first of equals, and the entries are in the order of their last refusals.
        return max(sources, key=lambda key: (networks[sources[key][0]], endpoints[sources[key]]))

    def remove(self, key: bytes) -> bool:
        """Remove an identity, because it was accepted, added or blocked. Return whether it was in the list."""
        if self._by_key.pop(key, None) is None:
            return False
        self._file.changed()
        self._changed()
        return True

    def _changed(self) -> None:
        self.revision += 1
        self.on_change()

    def infos(self) -> list[PendingPeer]:
        """Return the list, the last refusal first."""
        return [_info(each) for each in reversed(self._by_key.values())]

    def _encode(self) -> bytes:
        return msgspec.json.encode(_File(list(self._by_key.values())))


def _info(pending: _Pending) -> PendingPeer:
    wanted = []
    for name, count in reversed(pending.wanted.items()):
        identity, protocol, instance = (*name.split("/"), "", "")[:3]
        wanted.append(WantedBinding(identity=identity, protocol=protocol, instance=instance, count=count))
    return PendingPeer(
        id52=pending.id52,
        endpoint=pending.endpoint,
        first_ms=pending.first_ms,
        last_ms=pending.last_ms,
        count=pending.count,
        wanted=wanted,
    )
