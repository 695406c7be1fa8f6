"""Key file: a public header, then the secret.

The first 512 bytes are one line of JSON, padded with spaces. The rest is the secret: 32 bytes as they are, or sealed
under the vault's master key. So it can be read straight into locked memory, and ``head -1`` shows the header.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_actors.credentials.sodium import SEED_BYTES
from fastn_p2p_actors.storage.atomic_files import error_text, sync_directory
from fastn_p2p_client.errors import HomeUnusable, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE

from .sealing import SEALED_BYTES

FORMAT: Final = 1
HEADER_BYTES: Final = 512
SUFFIX: Final = ".key"
PLAIN: Final = "none"
SEALED: Final = "secretbox"
"""Encryption of a secret: none, or ``sealing``."""
_SIZES: Final = {PLAIN: SEED_BYTES, SEALED: SEALED_BYTES}
_TEMPORARY: Final = ".tmp"
_PRIVATE: Final = 0o600


class KeyHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    format: int
    kind: str
    """``identity`` or ``transport``."""
    name: str
    public: str
    """ID52."""
    encryption: str
    """Encryption of the secret: ``none`` or ``secretbox``."""
    created: str
    """UTC, ISO 8601."""
    epoch: int = 0
    """Epoch of a transport key."""
    lineage: str = ""
    """Lineage of a transport key, hexadecimal."""


_decoder = msgspec.json.Decoder(KeyHeader)
_encoder = msgspec.json.Encoder()


def prepare_directory(path: Path) -> None:
    """Create the directory (0700) if it is missing, and delete the rest of an interrupted write.

    Raises:
        HomeUnusable: another user owns it, others may use it, or it cannot be created.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise HomeUnusable(path=str(path), reason="it is not a directory")
        _check_private(path, found)
        for left in path.glob(f".*{_TEMPORARY}"):
            with suppress(OSError):
                overwrite_secret(left)
            left.unlink(missing_ok=True)
    except OSError as error:
        raise HomeUnusable(path=str(path), reason=_words(error)) from None


def overwrite_secret(path: Path) -> None:
    """Overwrite the secret of a file with random bytes, then zeros, each time on disk. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size = max(0, os.fstat(descriptor).st_size - HEADER_BYTES)
        for content in (os.urandom(size), bytes(size)):
            os.pwrite(descriptor, content, HEADER_BYTES)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode_header(header: KeyHeader) -> bytes:
    """Return the header as it is on disk, ``HEADER_BYTES`` long."""
    line = _encoder.encode(header)
    if len(line) >= HEADER_BYTES:
        raise ValueError("the header is too long")
    return line.ljust(HEADER_BYTES - 1) + b"\n"


def write_temporary(path: Path, header: bytes, secret: memoryview | bytes) -> Path:
    """Write a file beside ``path`` that can take its place, on disk when this returns. Return its path.

    Raises:
        StorageFailed: it could not be written. Nothing is left.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
        try:
            os.fchmod(descriptor, _PRIVATE)
            if os.writev(descriptor, [header, secret]) != HEADER_BYTES + len(secret):
                raise StorageFailed(path=str(path), reason="only a part of it could be written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, StorageFailed) as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, StorageFailed):
            raise
        raise StorageFailed(path=str(path), reason=_words(error)) from None
    return temporary


def write_key_file(path: Path, header: KeyHeader, secret: memoryview | bytes) -> None:
    """Create ``path``, on disk when this returns. An existing file is never overwritten.

    Args:
        secret: the seed, or the sealed seed if the header says so.

    Raises:
        FileExistsError: there is a key already.
        StorageFailed: it could not be written. Nothing was changed.
    """
    if len(secret) != _SIZES[header.encryption]:
        raise ValueError("the secret has the wrong length")
    temporary = write_temporary(path, encode_header(header), secret)
    linked = False
    try:
        os.link(temporary, path)  # unlike a rename, it fails if the path exists
        linked = True
        temporary.unlink()
        sync_directory(path.parent)
    except FileExistsError:
        temporary.unlink(missing_ok=True)
        raise
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if linked:
            path.unlink(missing_ok=True)
        raise StorageFailed(path=str(path), reason=_words(error)) from None


@contextmanager
def open_key_file(path: Path, kind: str, name: str) -> Iterator[tuple[KeyHeader, int]]:
    """Return the header, and a descriptor from which the secret can be read at ``HEADER_BYTES``.

    Raises:
        FileNotFoundError: there is no such file.
        HomeUnusable: another user owns the file, others may use it, or it is damaged, of a newer version, or another
            key's.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HomeUnusable(path=str(path), reason=_words(error)) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise HomeUnusable(path=str(path), reason="it is not a regular file")
        _check_private(path, found)
        header = _decode(path, os.pread(descriptor, HEADER_BYTES, 0))
        if header.format != FORMAT or header.encryption not in _SIZES:
            reason = (
                f"format {header.format} with encryption {header.encryption[:32]!r}, which this version cannot read"
            )
            raise HomeUnusable(path=str(path), reason=reason)
        size = HEADER_BYTES + _SIZES[header.encryption]
        if found.st_size != size:
            reason = f"it is damaged: {found.st_size} bytes instead of {size}"
            raise HomeUnusable(path=str(path), reason=reason)
        if (header.kind, header.name) != (kind, name):
            reason = f"it holds the {header.kind[:32]} key of {header.name[:64]!r}"
            raise HomeUnusable(path=str(path), reason=reason)
        yield header, descriptor
    except (OSError, EOFError) as error:
        raise HomeUnusable(path=str(path), reason=_words(error)) from None
    finally:
        os.close(descriptor)


def _decode(path: Path, line: bytes) -> KeyHeader:
    try:
        return _decoder.decode(line)
    except UNDECODABLE as error:
        raise HomeUnusable(path=str(path), reason=f"it is damaged: {error}") from None


def _check_private(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise HomeUnusable(path=str(path), reason=f"it belongs to user {found.st_uid}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise HomeUnusable(path=str(path), reason=f"others can get at it (mode {mode:04o}); run: chmod go= {path}")


def _words(error: OSError | EOFError) -> str:
    return error_text(error) if isinstance(error, OSError) else "it ends too early"
