"""Tokens of workers on other machines: ``identities/.worker-tokens.json`` has a hash of each, not the secret."""

from __future__ import annotations

from typing import Final

import msgspec

from fastn_p2p_client.errors import Overloaded, StorageDamaged
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE

from .atomic_files import write_atomically

MAX_TOKENS: Final = 16
"""Valid tokens of one binding."""

Binding = tuple[str, str, str]


class _Entry(msgspec.Struct, frozen=True):
    identity: str
    protocol: str
    instance: str
    hashes: tuple[bytes, ...]


class WorkerTokenStore:
    """Hashes of the valid tokens by binding: identity, protocol and instance. It blocks while it reads and writes."""

    def __init__(self, home: Home) -> None:
        self._path = home.identities / ".worker-tokens.json"

    def read(self) -> dict[Binding, tuple[bytes, ...]]:
        """Return the hashes of all tokens. Raises StorageDamaged."""
        try:
            entries = msgspec.json.decode(self._path.read_bytes(), type=list[_Entry])
        except FileNotFoundError:
            return {}
        except (OSError, *UNDECODABLE) as error:
            raise StorageDamaged(path=str(self._path), reason=str(error)) from error
        return {(each.identity, each.protocol, each.instance): each.hashes for each in entries}

    def add(self, binding: Binding, token: bytes) -> None:
        """Add the hash of a token.

        Raises:
            Overloaded: the binding has as many as it may have.
            StorageFailed, StorageDamaged: nothing was changed.
        """
        known = self.read()
        hashes = known.get(binding, ())
        if len(hashes) >= MAX_TOKENS:
            raise Overloaded(
                what="tokens of this protocol; revoke them: fastn-p2p worker-token --revoke", limit=MAX_TOKENS
            )
        self._write({**known, binding: (*hashes, token)})

    def remove(self, identity: str, protocol: str = "", instance: str = "") -> int:
        """Remove the tokens of a binding, or of all bindings of an identity. Return how many there were.

        Raises:
            StorageFailed, StorageDamaged: nothing was changed.
        """
        known = self.read()
        wanted = (identity, protocol, instance) if protocol else (identity,)
        kept = {binding: hashes for binding, hashes in known.items() if binding[: len(wanted)] != wanted}
        if len(kept) < len(known):
            self._write(kept)
        return sum(len(hashes) for binding, hashes in known.items() if binding not in kept)

    def _write(self, known: dict[Binding, tuple[bytes, ...]]) -> None:
        write_atomically(
            self._path, msgspec.json.encode([_Entry(*binding, hashes) for binding, hashes in known.items()])
        )
