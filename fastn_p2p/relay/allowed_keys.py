"""Access list of a relay: a file with one key on each line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.peer_text import name_or_id52

_HEX: Final = 64
"""Characters of a key in hexadecimal, as iroh prints endpoint ids."""


class InvalidAccessList(ValueError):
    """The file is no access list. The message names the line."""


class AllowedKeys:
    """Keys that may use the relay and publish in the directory: of endpoints, and of identities.

    Without a file every key may.

    Args:
        path: file with a key on each line, in hexadecimal, as ID52 or as a URI or ticket of it; ``#`` begins a comment.

    Raises:
        InvalidAccessList: a line is no key.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: frozenset[bytes] | None = None
        self.reload()

    def reload(self) -> None:
        """Read the file again. If that fails, the keys of before stay.

        Raises:
            InvalidAccessList: a line is no key.
            OSError: the file cannot be read.
        """
        if self._path is not None:
            self._keys = _read_keys(self._path)

    def admits(self, key: bytes) -> bool:
        return self._keys is None or key in self._keys

    def __len__(self) -> int:
        return len(self._keys or ())


def _read_keys(path: Path) -> frozenset[bytes]:
    keys = set()
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                keys.add(_read_key(text))
            except (P2PError, ValueError):
                raise InvalidAccessList(
                    f"{path}, line {number}: {text[:80]!r} is no key. Write an ID52 or an endpoint id"
                ) from None
    return frozenset(keys)


def _read_key(text: str) -> bytes:
    return bytes(PublicKey(bytes.fromhex(text) if len(text) == _HEX else name_or_id52(text)))
