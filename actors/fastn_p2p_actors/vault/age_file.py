"""Files in the age format: written and read in pieces, through one buffer of locked memory.

The payload is in chunks of 64 KiB, each encrypted and authenticated under a nonce of its number and a flag for the last
one (STREAM). So a file that was cut off, extended or reordered does not open.
"""

from __future__ import annotations

import os
from typing import Any, Final

from fastn_p2p_actors.credentials.sodium import ffi, lib
from fastn_p2p_client.errors import StorageFailed

from ..storage.atomic_files import error_text
from .age_keys import MAX_HEADER, NONCE_BYTES, TAG_BYTES, WORK_FACTOR, AgeFormatError, AgeHeader, AgeKeys
from .passphrase import Secret
from .secret_buffer import SecretBuffer

CHUNK_BYTES: Final = 64 * 1024
_COUNTER_BYTES: Final = 11
_HEX: Final = b"0123456789abcdef"


class _AgeFile:
    """State that writer and reader share. Use it with ``with``: keys and content are wiped at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._keys = AgeKeys()
        self._buffer = SecretBuffer(CHUNK_BYTES + TAG_BYTES)
        self._chunks = 0

    def __exit__(self, *exception: object) -> None:
        self._buffer.__exit__(*exception)
        self._keys.__exit__(*exception)

    def _nonce(self, *, last: bool) -> bytes:
        nonce = self._chunks.to_bytes(_COUNTER_BYTES, "big") + bytes([last])
        self._chunks += 1
        return nonce


class AgeWriter(_AgeFile):
    """Writes a new file to a descriptor. ``start`` comes first, ``finish`` last."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._filled = 0

    def __enter__(self) -> AgeWriter:
        return self

    def start(self, secret: Secret, work_factor: int = WORK_FACTOR) -> None:
        """Write the header. Takes a second: call it in a thread.

        Raises:
            Overloaded: there is not enough memory for scrypt.
            StorageFailed: it cannot be written.
        """
        header = self._keys.create(secret, work_factor)
        nonce = os.urandom(NONCE_BYTES)
        self._keys.start_payload(nonce)
        self._write_all(header + nonce)

    def write(self, data: bytes) -> None:
        """Write public content. Raises StorageFailed."""
        rest = memoryview(data)
        while rest:
            if self._filled == CHUNK_BYTES:
                self._flush(last=False)
            size = min(len(rest), CHUNK_BYTES - self._filled)
            self._buffer.view[self._filled : self._filled + size] = rest[:size]
            self._filled += size
            rest = rest[size:]

    def write_hex(self, secret: Any, size: int) -> None:
        """Write a secret of ``size`` bytes as hexadecimal digits, without a copy elsewhere. Raises StorageFailed."""
        for at in range(size):
            for digit in (secret[at] >> 4, secret[at] & 15):
                if self._filled == CHUNK_BYTES:
                    self._flush(last=False)
                self._buffer.pointer[self._filled] = _HEX[digit]
                self._filled += 1

    def finish(self) -> None:
        """Write the last chunk, and have the file on disk when this returns. Raises StorageFailed."""
        self._flush(last=True)
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageFailed(path="the backup", reason=error_text(error)) from None

    def _flush(self, *, last: bool) -> None:
        memory = self._buffer.pointer
        lib.crypto_aead_chacha20poly1305_ietf_encrypt(
            memory, ffi.NULL, memory, self._filled, ffi.NULL, 0, ffi.NULL, self._nonce(last=last), self._keys.payload
        )
        self._write_all(self._buffer.view[: self._filled + TAG_BYTES])
        self._filled = 0

    def _write_all(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise StorageFailed(path="the backup", reason=error_text(error)) from None


class AgeReader(_AgeFile):
    """Reads a file from a descriptor, from its start. ``start`` comes first.

    Read bytes are genuine, but only ``finish`` shows that nothing is missing.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._ahead = b""
        self._next = self._end = 0
        self._is_last = False

    def __enter__(self) -> AgeReader:
        return self

    def start(self, secret: Secret) -> None:
        """Open the header. Takes a second or more: call it in a thread.

        Raises:
            AgeFormatError: the file cannot be read.
            WrongBackupPassphrase: the passphrase is not that of the file.
            Overloaded: there is not enough memory for scrypt.
        """
        start = self._read_raw(MAX_HEADER)
        header = AgeHeader.parse(start)
        self._keys.open(secret, header, start)
        self._ahead = start[header.size :]
        nonce = self._read_raw(NONCE_BYTES)
        if len(nonce) < NONCE_BYTES:
            raise AgeFormatError("it is cut off")
        self._keys.start_payload(nonce)

    def read(self, size: int) -> bytes:
        """Return public content of ``size`` bytes, or what is left. Raises AgeFormatError."""
        parts: list[bytes] = []
        while size and self._has_more():
            count = min(size, self._end - self._next)
            parts.append(bytes(self._buffer.view[self._next : self._next + count]))
            self._next += count
            size -= count
        return b"".join(parts)

    def read_hex(self, target: Any, size: int) -> None:
        """Write a secret of ``size`` bytes to ``target``, from its hexadecimal digits.

        Raises:
            AgeFormatError: there are none, or the file is damaged.
        """
        for at in range(size):
            target[at] = self._digit() << 4 | self._digit()

    def finish(self) -> None:
        """Check that nothing but zeros follows, up to the real end of the file. Raises AgeFormatError."""
        while self._has_more():
            if any(self._buffer.view[self._next : self._end]):
                raise AgeFormatError("something follows its end")
            self._next = self._end

    def _digit(self) -> int:
        digit = _HEX.find(self._buffer.pointer[self._next]) if self._has_more() else -1
        if digit < 0:
            raise AgeFormatError("a key in it is damaged")
        self._next += 1
        return digit

    def _has_more(self) -> bool:
        """Return whether content is left. Decrypt the next chunk if necessary. Raises AgeFormatError."""
        while self._next == self._end:
            if self._is_last:
                return False
            self._decrypt_chunk()
        return True

    def _decrypt_chunk(self) -> None:
        data = self._read_raw(CHUNK_BYTES + TAG_BYTES)
        self._ahead = self._read_raw(1)
        self._is_last = not self._ahead
        size = len(data) - TAG_BYTES
        opened = size >= 0 and lib.crypto_aead_chacha20poly1305_ietf_decrypt(
            self._buffer.pointer, ffi.NULL, ffi.NULL, data, len(data), ffi.NULL, 0, self._nonce(last=self._is_last),
            self._keys.payload,
        ) == 0  # fmt: skip
        if not opened or (size == 0 and self._chunks > 1):
            raise AgeFormatError("it is damaged, or cut off")
        self._next, self._end = 0, size

    def _read_raw(self, size: int) -> bytes:
        """Return ``size`` bytes of the file, or what is left. Raises AgeFormatError."""
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        try:
            while len(data) < size and (more := os.read(self._descriptor, size - len(data))):
                data += more
        except OSError as error:
            raise AgeFormatError(f"it cannot be read: {error_text(error)}") from None
        return data
