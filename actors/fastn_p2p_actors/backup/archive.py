"""Archive of a backup: its paths, its manifest, and the tar format."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from typing import Final

import msgspec

FORMAT: Final = 1
"""Format of the archive. A reader refuses a newer one."""
MAX_PUBLIC: Final = 15 * 1024 * 1024
"""Bytes of all files without a secret: they travel to the gateway as one payload."""
BLOCK: Final = 512
"""Bytes of a block of a tar file."""
END: Final = bytes(2 * BLOCK)
"""End of an archive."""

MANIFEST: Final = "backup.json"
IDENTITIES: Final = "identities"
PEERS: Final = "peers"
CONTACTS: Final = "contacts"
SEED: Final = "seed"
REVOCATION: Final = "revocation.json"
REPLICAS: Final = "replicas.json"
REPORTS: Final = "replica-reports.json"
SEED_DIGITS: Final = 64
"""Bytes of a file with a seed, without the line break at its end."""


class BackedUpKey(msgspec.Struct, frozen=True):
    name: str
    id52: str
    created: str
    """Time at which the key was made: UTC, ISO 8601."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``backup.json``."""

    format: int = FORMAT
    created: str
    """UTC, ISO 8601."""
    host: str = ""
    """Name of the machine."""
    identities: list[BackedUpKey]


class ArchiveError(Exception):
    """The archive is damaged. The text is the reason."""


def encode_header(path: str, size: int, now: float) -> bytes:
    """Return the header of a file of ``size`` bytes."""
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = size, 0o600, int(now)
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def padding(size: int) -> int:
    """Return the number of zeros that follow ``size`` bytes."""
    return -size % BLOCK


def encode_file(path: str, data: bytes, now: float | None = None) -> bytes:
    """Return header and content of a file."""
    header = encode_header(path, len(data), time.time() if now is None else now)
    return header + data + bytes(padding(len(data)))


def decode_header(block: bytes) -> tuple[str, int] | None:
    """Return path and size of the file that a header begins; None at the end of the archive.

    Raises:
        ArchiveError: it is no header of a regular file.
    """
    if len(block) == BLOCK and not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError):
        raise ArchiveError("it holds no backup of fastn-p2p, or is damaged") from None
    if not info.isreg():
        raise ArchiveError(f"{info.name[:80]!r} in it is no regular file")
    return info.name, info.size


def read_files(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file.

    Raises:
        ArchiveError: the archive is damaged.
    """
    at = 0
    while at < len(archive):
        found = decode_header(archive[at : at + BLOCK])
        if found is None:
            return
        path, size = found
        at += BLOCK
        if size > len(archive) - at:
            raise ArchiveError("it is cut off")
        yield path, archive[at : at + size]
        at += size + padding(size)


def check_manifest(path: str, data: bytes) -> Manifest:
    """Return the manifest in the first file of an archive.

    Raises:
        ArchiveError: there is none, or the archive is of a newer version.
    """

    class Version(msgspec.Struct):
        format: int

    try:
        if path != MANIFEST:
            raise ArchiveError("it holds no backup of fastn-p2p")
        found = msgspec.json.decode(data, type=Version).format
        if found != FORMAT:
            raise ArchiveError(f"format {found}, of a newer version of fastn-p2p. Upgrade this one")
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{MANIFEST} in it is damaged: {error}") from None


def split_identity_path(path: str) -> tuple[str, str] | None:
    """Return the name of an identity and the rest of the path; None for another path."""
    parts = path.split("/", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == IDENTITIES else None
