"""Config of the protocol ``FileTransfer``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import ID52_LENGTH, PublicKey
from fastn_p2p_client.names import check_name
from fastn_p2p_client.peer_text import name_or_id52
from fastn_p2p_client.protocol import Peer

from .messages import MAX_OFFER

_GIB: Final = 1024**3
_Bytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class FileTransferConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Directories to share, and limits of offers.

    At least one of ``root`` and ``inbox`` is needed. Both are existing directories: absolute, or with ``~``.
    """

    root: str | None = None
    """Directory that peers may list and get files from."""
    inbox: str | None = None
    """Directory in which the files of accepted offers are written."""
    trust: tuple[str, ...] = ()
    """Peers whose offers are accepted at once: petnames, ID52s, tickets or URIs."""
    max_file_size: _Bytes = 100 * _GIB
    """Bytes of one offered file."""
    max_files: Annotated[int, msgspec.Meta(ge=1, le=MAX_OFFER)] = 10_000
    """Files and directories in one offer."""
    max_total: _Bytes = 100 * _GIB
    """Bytes of all files in one offer."""

    def check(self) -> None:
        """Check that the directories exist and that the fields fit together.

        Raises:
            ValueError: they do not; the message says why.
        """
        if self.root is None and self.inbox is None:
            raise ValueError('nothing is shared and no files are accepted: set "root", "inbox", or both')
        if self.root is not None:
            _check_directory("root", self.root, os.R_OK | os.X_OK)
        if self.inbox is not None:
            _check_directory("inbox", self.inbox, os.R_OK | os.W_OK | os.X_OK)
        elif self.trust:
            raise ValueError('"trust" needs an "inbox": set it, or remove "trust"')
        for each in self.trust:
            try:
                name = name_or_id52(each)
                if len(name) >= ID52_LENGTH:
                    PublicKey(name)
                else:
                    check_name(name, "a peer")
            except P2PError:
                raise ValueError(f'"trust" has {each[:80]!r}, which is neither a petname nor an ID52') from None

    @property
    def shared(self) -> Path | None:
        """Path of ``root``."""
        return None if self.root is None else Path(self.root).expanduser()

    @property
    def received(self) -> Path | None:
        """Path of ``inbox``."""
        return None if self.inbox is None else Path(self.inbox).expanduser()

    def trusts(self, peer: Peer) -> bool:
        """Return whether the peer's offers are accepted at once."""
        trusted = {name_or_id52(each) for each in self.trust}
        return peer.key.id52 in trusted or (peer.name is not None and peer.name in trusted)


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
