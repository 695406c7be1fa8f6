"""Keys on disk and in memory: private, complete, never overwritten, and wiped when deleted."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey, VerifyKey

from fastn_p2p_actors.credentials.sodium import SEED_BYTES, verify
from fastn_p2p_actors.vault import key_file
from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.key_pair import KeyPair
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import CHUNK_BYTES, SLOT_BYTES, LockedMemory, MemoryWiped
from fastn_p2p_client.errors import HomeUnusable, IdentityExists, IdentityNotFound, StorageFailed
from tests.support.signer import NOW

SEED = bytes(range(32))


@pytest.fixture
def memory() -> Iterator[LockedMemory]:
    memory = LockedMemory()
    yield memory
    memory.wipe()


@pytest.fixture
def store(tmp_path: Path, memory: LockedMemory) -> KeyStore:
    return opened(tmp_path, memory)


def opened(folder: Path, memory: LockedMemory) -> KeyStore:
    store = KeyStore(folder / "vault", memory, lambda: float(NOW))
    store.open()
    return store


def identity_file(folder: Path, name: str) -> Path:
    return folder / "vault" / "identities" / f"{name}.key"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ── key pairs ────────────────────────────────────────────────────────────────────────────────────


def test_pair_read_from_a_file_is_the_one_that_others_derive_from_the_seed(
    tmp_path: Path, memory: LockedMemory
) -> None:
    (tmp_path / "seed").write_bytes(b"in front" + SEED)
    descriptor = os.open(tmp_path / "seed", os.O_RDONLY)
    pair = KeyPair.read(memory, descriptor, 8)
    with pytest.raises(EOFError):
        KeyPair.read(memory, descriptor, 9)
    os.close(descriptor)
    reference = SigningKey(SEED)
    assert pair.public == bytes(reference.verify_key)
    assert pair.sign(b"message") == reference.sign(b"message").signature
    assert bytes(pair.seed_view) == SEED


def test_generated_pairs_differ_and_sign(memory: LockedMemory) -> None:
    pairs = [KeyPair.generate(memory) for _ in range(3)]
    assert len({pair.public for pair in pairs}) == 3
    for pair in pairs:
        for message in (b"", b"x", bytes(100_000)):
            signature = pair.sign(message)
            assert VerifyKey(pair.public).verify(message, signature) == message
            assert verify(pair.public, message, signature)
            assert not verify(pair.public, message + b"x", signature)


# ── locked memory ────────────────────────────────────────────────────────────────────────────────


def test_memory_grows_by_pages_and_reuses_what_is_given_back(memory: LockedMemory) -> None:
    pairs = [KeyPair.generate(memory) for _ in range(5000)]
    assert memory.size <= 5001 * SLOT_BYTES + CHUNK_BYTES
    before = memory.size
    for pair in pairs:
        pair.wipe()
    pairs = [KeyPair.generate(memory) for _ in range(5000)]
    assert memory.size == before
    assert len({pair.public for pair in pairs}) == 5000
    assert verify(pairs[0].public, b"x", pairs[0].sign(b"x"))


def test_slot_given_back_is_empty(memory: LockedMemory) -> None:
    slot = memory.allocate()
    slot.view[:] = b"s" * SLOT_BYTES
    memory.free(slot)
    assert bytes(slot.view) == bytes(SLOT_BYTES)


def test_after_the_wipe_nothing_is_left_and_nothing_is_signed() -> None:
    memory = LockedMemory()
    pair = KeyPair.generate(memory)
    view = pair.seed_view
    memory.wipe()
    assert bytes(view) == bytes(SEED_BYTES)
    for use in (lambda: pair.sign(b"x"), lambda: pair.seed_view, lambda: KeyPair.generate(memory)):
        with pytest.raises(MemoryWiped):
            use()


def test_without_the_right_to_lock_it_works_and_warns_once() -> None:
    """Runs in a process of its own: the limit cannot be raised again, and does not bind root."""
    program = """
import logging, os, resource, sys
from fastn_p2p_actors.vault.key_pair import KeyPair
from fastn_p2p_actors.vault.locked_memory import LockedMemory

logging.basicConfig(stream=sys.stdout, format="%(message)s")
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
memory = LockedMemory()
pairs = [KeyPair.generate(memory) for _ in range(200)]
print(memory.locked, len(pairs[0].sign(b"x")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "cannot be locked" in lines[0]
    assert lines[1] == "False 64"


def test_memory_is_locked_where_the_limit_allows(memory: LockedMemory, caplog: pytest.LogCaptureFixture) -> None:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY and os.geteuid() != 0:
        pytest.skip("a limit on locked memory")
    with caplog.at_level(logging.WARNING):
        memory.allocate()
    assert memory.locked
    assert not caplog.records


# ── key files ────────────────────────────────────────────────────────────────────────────────────


def test_key_file_is_private_and_readable_as_described(tmp_path: Path, store: KeyStore) -> None:
    made = store.create("alice")
    path = identity_file(tmp_path, "alice")
    for directory in (tmp_path / "vault", path.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    for file in (path, tmp_path / "vault" / "transport.key"):
        assert (file.stat().st_mode & 0o777, file.stat().st_nlink) == (0o600, 1)
    content = path.read_bytes()
    assert len(content) == HEADER_BYTES + SEED_BYTES
    assert content.index(b"\n") == HEADER_BYTES - 1
    assert msgspec.json.decode(content[:HEADER_BYTES]) == {
        "format": 1,
        "kind": "identity",
        "name": "alice",
        "public": made.header.public,
        "encryption": "none",
        "created": "2027-01-15T08:00:00Z",
    }
    assert bytes(SigningKey(content[HEADER_BYTES:]).verify_key) == made.pair.public


def test_keys_outlive_the_process(tmp_path: Path, store: KeyStore) -> None:
    alice = store.create("alice")
    again = opened(tmp_path, LockedMemory())
    assert again.find("alice").pair.sign(b"x") == alice.pair.sign(b"x")
    assert again.transport.pair.public == store.transport.pair.public
    assert (again.transport.header.epoch, again.lineage) == (1, store.lineage)
    assert len(store.lineage) == 16


def test_key_that_exists_is_never_overwritten(tmp_path: Path, store: KeyStore) -> None:
    """Not even by a store that does not know it, or that looked before it was written."""
    path = identity_file(tmp_path, "alice")
    store.create("alice")
    before = files(tmp_path)
    with pytest.raises(IdentityExists):
        opened(tmp_path, LockedMemory()).create("alice")
    with pytest.raises(FileExistsError):
        key_file.write_key_file(path, store.find("alice").header, memoryview(bytes(SEED_BYTES)))
    assert files(tmp_path) == before
    identity_file(tmp_path, "bob").symlink_to("nowhere")
    with pytest.raises(IdentityExists):
        store.create("bob")


def test_deleted_key_is_gone_from_disk_and_memory(tmp_path: Path, store: KeyStore) -> None:
    view = store.create("alice").pair.seed_view
    store.delete("alice")
    assert not identity_file(tmp_path, "alice").exists()
    assert bytes(view) == bytes(SEED_BYTES)
    with pytest.raises(IdentityNotFound):
        store.find("alice")
    with pytest.raises(IdentityNotFound):
        store.delete("alice")


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def replace_header(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    header = content[:HEADER_BYTES].replace(old, new).rstrip()
    path.write_bytes(header.ljust(HEADER_BYTES - 1) + b"\n" + content[HEADER_BYTES:])


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def become_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "cut": (lambda path: os.truncate(path, HEADER_BYTES + SEED_BYTES - 1), "damaged"),
    "cut in the header": (lambda path: os.truncate(path, 100), "damaged"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged"),
    "one bit of the secret": (
        lambda path: overwrite(path, HEADER_BYTES, bytes([path.read_bytes()[HEADER_BYTES] ^ 1])),
        "do not match",
    ),
    "zeros": (lambda path: path.write_bytes(bytes(HEADER_BYTES + SEED_BYTES)), "damaged"),
    "no json": (lambda path: overwrite(path, 0, b"x"), "damaged"),
    "no text": (lambda path: overwrite(path, 30, b"\xff"), "damaged"),
    "another public key": (lambda path: replace_header(path, b'"public":"', b'"public":"x'), "do not match"),
    "another format": (lambda path: replace_header(path, b'"format":1', b'"format":2'), "cannot read"),
    "encrypted": (lambda path: replace_header(path, b'"none"', b'"argon2id"'), "cannot read"),
    "another name": (lambda path: replace_header(path, b'"alice"', b'"mallory"'), "mallory"),
    "another kind": (lambda path: replace_header(path, b'"identity"', b'"transport"'), "transport"),
    "another field": (lambda path: replace_header(path, b'{"format"', b'{"x":1,"format"'), "damaged"),
    "readable by others": (lambda path: path.chmod(0o640), "chmod"),
    "writable by others": (lambda path: path.chmod(0o602), "chmod"),
    "a directory": (become_directory, "not a regular file"),
    "a link": (become_link, "alice.key"),
    "a pipe": (become_fifo, "not a regular file"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_file_that_cannot_be_used_is_named_and_harms_no_other(
    tmp_path: Path, memory: LockedMemory, store: KeyStore, what: str
) -> None:
    store.create("alice")
    bob = store.create("bob")
    damage, words = DAMAGE[what]
    damage(identity_file(tmp_path, "alice"))
    again = opened(tmp_path, memory)
    size = memory.size
    for _ in range(2 * CHUNK_BYTES // SLOT_BYTES):
        with pytest.raises(HomeUnusable):
            again.find("alice")
    assert memory.size <= size + CHUNK_BYTES, "a key that cannot be used must leave nothing in memory"
    with pytest.raises(HomeUnusable) as caught:
        again.find("alice")
    assert caught.value.path == str(identity_file(tmp_path, "alice"))
    assert words in str(caught.value)
    assert again.find("bob").pair.public == bob.pair.public
    page = again.page("", 10)
    assert [key.header.name for key in page.keys] == ["bob"]
    assert [str(error) for error in page.damaged] == [str(caught.value)]
    with pytest.raises(IdentityExists):
        again.create("alice")


def test_every_flipped_bit_of_a_key_file_is_noticed_or_harmless(tmp_path: Path, store: KeyStore) -> None:
    alice = store.create("alice")
    path = identity_file(tmp_path, "alice")
    whole = path.read_bytes()
    memory = LockedMemory()
    for position in [*range(240), *range(HEADER_BYTES - 2, len(whole))]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            found = KeyStore(tmp_path / "vault", memory, lambda: 0.0).find("alice")
        except HomeUnusable:
            continue
        assert found.pair.public == alice.pair.public


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_refused(tmp_path: Path, memory: LockedMemory, store: KeyStore) -> None:
    store.create("alice")
    os.chown(identity_file(tmp_path, "alice"), 65534, -1)
    with pytest.raises(HomeUnusable, match="65534"):
        opened(tmp_path, memory).find("alice")
    os.chown(tmp_path / "vault", 65534, -1)
    with pytest.raises(HomeUnusable, match="65534"):
        opened(tmp_path, memory)


def test_directory_that_is_open_to_others_is_refused(tmp_path: Path, memory: LockedMemory) -> None:
    (tmp_path / "vault").mkdir(mode=0o700)
    (tmp_path / "vault").chmod(0o750)
    with pytest.raises(HomeUnusable, match="chmod"):
        opened(tmp_path, memory)


def test_damaged_transport_key_stops_the_vault_instead_of_being_replaced(
    tmp_path: Path, memory: LockedMemory, store: KeyStore
) -> None:
    path = tmp_path / "vault" / "transport.key"
    whole = path.read_bytes()
    damages: list[Callable[[Path], None]] = [
        lambda path: replace_header(path, b'"lineage":"', b'"lineage":"x'),
        lambda path: replace_header(path, b'"epoch":1', b'"epoch":0'),
        lambda path: overwrite(path, HEADER_BYTES, bytes(SEED_BYTES)),
    ]
    for damage in damages:
        damage(path)
        broken = path.read_bytes()
        with pytest.raises(HomeUnusable, match=r"transport\.key"):
            opened(tmp_path, memory)
        assert path.read_bytes() == broken
        path.write_bytes(whole)


def test_leftovers_of_an_interrupted_write_are_removed(tmp_path: Path, memory: LockedMemory, store: KeyStore) -> None:
    for folder in (tmp_path / "vault", tmp_path / "vault" / "identities"):
        (folder / ".alice.key.0123.tmp").write_bytes(b"half a key")
    opened(tmp_path, memory)
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize("call", ["open", "fchmod", "writev", "fsync", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_disk_that_fails_at_any_step_changes_nothing(
    tmp_path: Path, store: KeyStore, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    store.create("alice")
    before = files(tmp_path)

    def failing(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        with pytest.raises(StorageFailed) as caught:
            store.create("bob")
    assert caught.value.path == str(identity_file(tmp_path, "bob"))
    assert files(tmp_path) == before
    store.create("bob")


def test_half_a_write_and_a_directory_that_cannot_be_synced_change_nothing(
    tmp_path: Path, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", lambda descriptor, buffers: os.write(descriptor, buffers[0]))
        with pytest.raises(StorageFailed, match="part"):
            store.create("bob")

    def failing(_path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(key_file, "sync_directory", failing)
        with pytest.raises(StorageFailed):
            store.create("bob")
    assert files(tmp_path) == before
    store.create("bob")
