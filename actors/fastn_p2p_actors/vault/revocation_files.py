"""Revocation files: the signed revocation of each revoked identity, beside its key.

The file is the commit point of a revocation: once it is there, the vault signs nothing else for the identity. A file
that cannot be read counts as one, because the key may be in a thief's hands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_actors.storage.atomic_files import error_text, remove_file, write_atomically
from fastn_p2p_client.errors import HomeUnusable, InvalidName
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.names import check_name

SUFFIX: Final = ".revoked"
FORMAT: Final = 1


class SavedRevocation(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a file: JSON, bytes in base64."""

    format: int = FORMAT
    revocation: bytes
    """Signed revocation."""
    packet: bytes
    """Packet for directories with the revocation."""


_decoder: Final = msgspec.json.Decoder(SavedRevocation)


def decode_revocation(data: bytes) -> SavedRevocation:
    """Return the content of a file. Raises one of ``UNDECODABLE`` if it is damaged, or of another version."""
    saved = _decoder.decode(data)
    if saved.format != FORMAT:
        raise ValueError(f"format {saved.format}, which this version cannot read")
    return saved


class RevocationFiles:
    """Files ``<name>.revoked`` in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, name: str) -> SavedRevocation | None:
        """Return the revocation of an identity; None if it is not revoked.

        Raises:
            InvalidName: the name is no name of an identity.
            HomeUnusable: the file cannot be read.
        """
        path = self._path(name)
        try:
            return decode_revocation(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HomeUnusable(path=str(path), reason=error_text(error)) from None
        except UNDECODABLE as error:
            raise HomeUnusable(path=str(path), reason=f"it is damaged: {error}") from None

    def write(self, name: str, saved: SavedRevocation) -> None:
        """Write a revocation, on disk when this returns. Raises StorageFailed."""
        write_atomically(self._path(name), msgspec.json.encode(saved) + b"\n")

    def delete(self, name: str) -> bool:
        """Delete a revocation. Return whether there was one. Raises StorageFailed."""
        path = self._path(name)
        found = path.exists()
        if found:
            remove_file(path)
        return found

    def names(self) -> list[str]:
        """Return the names of the revoked identities, sorted. Raises HomeUnusable."""
        try:
            return sorted(path.stem for path in self._directory.glob(f"*{SUFFIX}") if _is_name(path.stem))
        except OSError as error:
            raise HomeUnusable(path=str(self._directory), reason=error_text(error)) from None

    def _path(self, name: str) -> Path:
        return self._directory / f"{check_name(name, 'an identity')}{SUFFIX}"


def _is_name(text: str) -> bool:
    try:
        check_name(text, "an identity")
    except InvalidName:
        return False
    return True
