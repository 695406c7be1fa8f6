"""The config of ``FileTransfer``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.names import check_name
from fastn_p2p_client.protocol import Peer

from .messages import MAX_OFFER

_GIB: Final = 1024**3
_Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class FileTransferConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At least one of ``root`` and ``inbox`` is needed. Both are existing directories: absolute, or with ``~``."""

    root: str | None = None
    """Peers list, look at and get what is below this directory."""
    inbox: str | None = None
    """Files that peers offer end up in this directory, once they are accepted."""
    trust: tuple[str, ...] = ()
    """Petnames and ID52s of peers whose offers are accepted at once."""
    max_file_size: _Bytes = 100 * _GIB
    """Bytes in one file that is offered."""
    max_files: Annotated[int, msgspec.Meta(ge=1, le=MAX_OFFER)] = 10_000
    """Files and directories in one offer."""
    max_total: _Bytes = 100 * _GIB
    """Bytes in one offer."""

    def check(self) -> None:
        """
        Raises:
            ValueError: it cannot work; says why.
        """
        if self.root is None and self.inbox is None:
            raise ValueError('it shares nothing and takes nothing: give it a "root", an "inbox", or both')
        if self.root is not None:
            _check_directory("root", self.root, os.R_OK | os.X_OK)
        if self.inbox is not None:
            _check_directory("inbox", self.inbox, os.R_OK | os.W_OK | os.X_OK)
        elif self.trust:
            raise ValueError('"trust" needs an "inbox"')
        for each in self.trust:
            try:
                PublicKey(each)
            except P2PError:
                try:
                    check_name(each, "a peer")
                except P2PError:
                    raise ValueError(f'"trust" has {each[:80]!r}, which is neither a petname nor an ID52') from None

    @property
    def shared(self) -> Path | None:
        """Where ``root`` is."""
        return None if self.root is None else Path(self.root).expanduser()

    @property
    def received(self) -> Path | None:
        """Where ``inbox`` is."""
        return None if self.inbox is None else Path(self.inbox).expanduser()

    def trusts(self, peer: Peer) -> bool:
        """Whether the peer's offers are accepted at once."""
        return peer.key.id52 in self.trust or (peer.name is not None and peer.name in self.trust)


def _check_directory(field: str, text: str, rights: int) -> None:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f'"{field}": {error}') from None
    if "\0" in text or not path.is_absolute():
        raise ValueError(f'"{field}" is not an absolute path: {text[:200]!r}')
    if not path.is_dir():
        raise ValueError(f'"{field}" is not an existing directory: {text[:200]}')
    if not os.access(path, rights):
        raise ValueError(f'"{field}" cannot be {"written to" if rights & os.W_OK else "read"}: {text[:200]}')
