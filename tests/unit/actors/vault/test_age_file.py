"""Files in the age format: other programs read ours and we read theirs; every damage is noticed."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_p2p_actors.credentials.sodium import ffi
from fastn_p2p_actors.vault.age_file import CHUNK_BYTES, AgeReader, AgeWriter
from fastn_p2p_actors.vault.age_keys import MAX_WORK_FACTOR, TAG_BYTES, AgeFormatError, AgeHeader
from fastn_p2p_client.errors import StorageFailed, WrongBackupPassphrase
from tests.support.age_library import decrypt, secret_of
from tests.support.terminals import on_terminal

CHEAP = 4
"""Work factor."""
RIGHT = b"correct horse"

FROM_RUST = base64.b64decode(
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBXSlV6STY4bnYyQ0ZKbFp3S0JOSXZnIDE4Cit6OTFwblhJTmhzMEJndEd0"
    "ZzN5WnNCZDJaUXB0eCszSXc4amRtdWRSekkKLS0tIDVkb21taFI1RkdKZWFUTnVlMzVrUmI4dVVMNW5DblNtSytCZWErR3Q1Vk0K"
    "ZECwqnln9HDQMLkuAowjvi/edgl+NYo38ouDoz8hJaNNnVgySvcn"
)
"""File with ``content``, made by pyrage 1.4.0 (work factor 91pnXINhs0BgtGtg3yZs)."""


def written(path: Path, *parts: bytes, secret: bytes = b"") -> bytes:
    """Write a file in parts, then a secret in hexadecimal; return it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with secret_of(RIGHT) as passphrase, AgeWriter(descriptor) as writer:
            writer.start(passphrase, CHEAP)
            for part in parts:
                writer.write(part)
            writer.write_hex(ffi.from_buffer("unsigned char[]", secret), len(secret))
            writer.finish()
    finally:
        os.close(descriptor)
    return path.read_bytes()


def read(path: Path, size: int, passphrase: bytes = RIGHT) -> bytes:
    """Return ``size`` bytes of the content, after checking the whole file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with secret_of(passphrase) as secret, AgeReader(descriptor) as reader:
            reader.start(secret)
            content = reader.read(size)
            reader.finish()
            return content
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_library_in_rust_reads_what_we_write(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    data = written(tmp_path / "file", content[: size // 3], content[size // 3 :])
    assert decrypt(data, RIGHT.decode()) == content
    assert read(tmp_path / "file", size + 1) == content


def test_we_read_what_a_library_in_rust_has_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FROM_RUST)
    assert read(tmp_path / "file", 100) == b"content"


def test_another_passphrase_does_not_open_it(tmp_path: Path) -> None:
    written(tmp_path / "file", b"content")
    for wrong in (b"correct hors", b"correct horse ", b"Correct horse"):
        with pytest.raises(WrongBackupPassphrase):
            read(tmp_path / "file", 7, wrong)


@pytest.mark.skipif(shutil.which("age") is None, reason="the program age is not installed")
def test_the_age_tool_reads_what_we_write(tmp_path: Path) -> None:
    """It asks for the passphrase on its terminal."""
    written(tmp_path / "file", b"content")
    with on_terminal(
        os.environ, "-d", "-o", str(tmp_path / "content"), str(tmp_path / "file"), command=("age",)
    ) as tty:
        tty.until(lambda rows: any("passphrase" in row for row in rows), "the question")
        tty.type(RIGHT + b"\r")
        assert tty.ends() == 0
    assert (tmp_path / "content").read_bytes() == b"content"


def test_a_secret_is_written_in_hexadecimal_and_read_back_across_chunks(tmp_path: Path) -> None:
    secret = os.urandom(32)
    start = bytes(CHUNK_BYTES - 7)
    data = written(tmp_path / "file", start, secret=secret)
    assert decrypt(data, RIGHT.decode()) == start + secret.hex().encode()
    target = ffi.new("unsigned char[]", 32)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with secret_of(RIGHT) as passphrase, AgeReader(descriptor) as reader:
            reader.start(passphrase)
            assert reader.read(len(start)) == start
            reader.read_hex(target, 32)
            with pytest.raises(AgeFormatError, match="a key in it is damaged"):
                reader.read_hex(target, 1)
    finally:
        os.close(descriptor)
    assert bytes(ffi.buffer(target)) == secret


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], "damaged, or cut off"),
        (lambda data: data[: -(100 + TAG_BYTES)], "damaged, or cut off"),
        (lambda data: data + b"x", "damaged, or cut off"),
        (lambda data: data[:160], "cut off"),
        (lambda data: data[:40], "its header is damaged"),
        (lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:], "damaged, or cut off"),
        (lambda data: data.replace(b"\n--- ", b"\n---  "), "its header is damaged"),
        (lambda data: data.replace(b" 4\n", b" 04\n"), "its header is damaged"),
        (lambda data: data.replace(b"v1\n", b"v2\n", 1), "a newer version of the age format"),
        (lambda data: b"", "no file of age"),
        (lambda data: b"-----BEGIN AGE ENCRYPTED FILE-----\n", "--armor"),
        (lambda data: os.urandom(5000), "no file of age"),
        (lambda data: data.replace(b"-> scrypt", b"-> X25519"), "keys of recipients"),
        (lambda data: data.replace(b" 4\n", b" 63\n"), "work factor 63"),
        (lambda data: data.replace(b" 4\n", b" %d\n" % (MAX_WORK_FACTOR + 1)), "2,048 MiB of memory"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(tmp_path: Path, damage: Damage, reason: str) -> None:
    path = tmp_path / "file"
    data = written(path, bytes(CHUNK_BYTES), b"x" * 100)
    changed = damage(data)
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(AgeFormatError, match=reason):
        read(path, CHUNK_BYTES + 200)


def test_a_header_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = written(path, b"content")
    mac = data[data.index(b"--- ") + 4 :][:43]
    path.write_bytes(data.replace(mac, (b"A" if mac[:1] != b"A" else b"B") + mac[1:]))
    with pytest.raises(AgeFormatError, match="its header was changed"):
        read(path, 7)


def test_zeros_may_follow_the_content_and_nothing_else(tmp_path: Path) -> None:
    written(tmp_path / "file", b"content", bytes(2 * CHUNK_BYTES))
    assert read(tmp_path / "file", 7) == b"content"
    written(tmp_path / "file", b"content", bytes(2 * CHUNK_BYTES), b"x")
    with pytest.raises(AgeFormatError, match="something follows its end"):
        read(tmp_path / "file", 7)


@given(start=st.binary(max_size=300))
def test_any_beginning_of_a_file_is_a_header_or_refused(start: bytes) -> None:
    for data in (start, b"age-encryption.org/v1\n" + start, b"age-encryption.org/v1\n-> scrypt " + start):
        with pytest.raises(AgeFormatError):
            AgeHeader.parse(data)


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with secret_of(RIGHT) as secret, AgeWriter(descriptor) as writer, pytest.raises(StorageFailed, match="full"):
            writer.start(secret, CHEAP)
    finally:
        os.close(descriptor)
