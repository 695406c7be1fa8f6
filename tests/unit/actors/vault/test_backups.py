"""Backups of keys: what is in them, what is never in them, and what comes back in another home."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from fastn_p2p_actors.backup.archive import END, MANIFEST, ArchiveError, encode_file
from fastn_p2p_actors.backup.contents import BackupContents
from fastn_p2p_actors.credentials import read_revocation
from fastn_p2p_actors.vault import key_codec
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK
from fastn_p2p_actors.vault.age_file import AgeWriter
from fastn_p2p_actors.vault.backups import Backups
from fastn_p2p_actors.vault.key_file import HEADER_BYTES, KeyHeader, write_key_file
from fastn_p2p_actors.vault.messages import AdoptKeys, ListRevokedKeys, RevokedKeys, RevokeKey, SignDelegation
from fastn_p2p_actors.vault.owner_messages import BackupOpened, CreateBackup, OpenBackup
from fastn_p2p_actors.vault.vault import Vault
from fastn_p2p_client.errors import (
    BackupUnusable,
    BadMessage,
    IdentityExists,
    IdentityNotFound,
    IdentityRevoked,
    StorageFailed,
    VaultLocked,
    WrongBackupPassphrase,
)
from tests.support.age_library import decrypt, secret_of
from tests.support.locked_vaults import LockedVault, delivered

CHEAP = 4
RIGHT = b"correct horse"


class Home:
    """Vault of a directory, with its backups."""

    def __init__(self, folder: Path) -> None:
        self.keys = LockedVault(folder)
        self.events: list[tuple[str, dict[str, object]]] = []
        self.backups = Backups(
            self.keys.store,
            self.keys.memory,
            self.keys.lock.busy,
            lambda event, fields: self.events.append((event, fields)),
            work_factor=CHEAP,
            clock=self.keys.clock,
        )
        self.vault = Vault(self.keys.store, self.keys.clock, backups=self.backups)

    def seed(self, name: str) -> bytes:
        return (self.keys.folder / "identities" / f"{name}.key").read_bytes()[HEADER_BYTES:]

    def public(self, name: str) -> bytes:
        return self.keys.store.find(name).pair.public

    async def create(self, path: Path, *names: str, public: bytes = b"") -> bytes:
        """Make a backup and return the archive in it, as another program decrypts it."""
        with delivered(RIGHT) as passphrase, opened(path, os.O_RDWR | os.O_CREAT) as target, memory(public) as files:
            await self.backups.create(CreateBackup(names), passphrase, files, target)
        return decrypt(path.read_bytes(), RIGHT.decode())

    async def open(self, path: Path, passphrase: bytes = RIGHT, *, keep: bool = True) -> tuple[BackupOpened, bytes]:
        with delivered(passphrase) as secret, opened(path, os.O_RDONLY) as source, memory(b"") as files:
            reply = await self.backups.open(OpenBackup(keep), secret, source, files)
            return reply, os.pread(files, 1 << 24, 0)

    def adopt(self, opened: BackupOpened, *names: str | tuple[str, str]) -> None:
        pairs = tuple(each if isinstance(each, tuple) else (each, each) for each in names)
        self.vault.answer(GATEWAY, AdoptKeys(opened.token, pairs))

    def close(self) -> None:
        self.backups.close()
        self.keys.close()


class opened:
    """Open file."""

    def __init__(self, path: Path, flags: int) -> None:
        self._descriptor = os.open(path, flags, 0o600)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)


class memory(opened):
    """File in memory with some content."""

    def __init__(self, content: bytes) -> None:
        self._descriptor = os.memfd_create("test")
        os.write(self._descriptor, content)


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[tuple[Home, Home]]:
    """A home with alice and bob, and an empty one."""
    both = Home(tmp_path / "one"), Home(tmp_path / "two")
    for name in ("alice", "bob"):
        both[0].keys.store.create(name)
    yield both
    for home in both:
        home.close()


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


async def test_a_backup_is_a_tar_file_with_the_seeds_and_never_the_transport_key(
    homes: tuple[Home, Home], tmp_path: Path
) -> None:
    one, _ = homes
    given = encode_file("peers/bob.json", b'{"name": "bob"}')
    archive = await one.create(tmp_path / "all.age", public=given)
    files = files_of(archive)
    assert list(files) == ["backup.json", "identities/alice/seed", "identities/bob/seed", "peers/bob.json"]
    assert [each["name"] for each in json.loads(files["backup.json"])["identities"]] == ["alice", "bob"]
    assert files["identities/alice/seed"] == one.seed("alice").hex().encode() + b"\n"
    transport = (one.keys.folder / "transport.key").read_bytes()[HEADER_BYTES:]
    for form in (transport, transport.hex().encode(), one.keys.store.transport.pair.public):
        assert form not in archive
    assert one.seed("alice") not in (tmp_path / "all.age").read_bytes()
    chosen = files_of(await one.create(tmp_path / "bob.age", "bob"))
    assert list(chosen) == ["backup.json", "identities/bob/seed"]
    assert one.events[0] == ("backup-created", {"identities": ["alice", "bob"], "count": 2})


async def test_keys_come_back_in_another_home_under_another_name_and_sealed(
    homes: tuple[Home, Home], tmp_path: Path
) -> None:
    one, two = homes
    await one.create(tmp_path / "all.age")
    await two.keys.set_passphrase(b"of the vault\n")
    found, public = await two.open(tmp_path / "all.age")
    assert one.seed("alice") not in public
    assert one.seed("alice").hex().encode() not in public
    assert sorted(BackupContents(public).identities) == ["alice", "bob"]
    two.adopt(found, "alice", ("bob", "robert"))
    assert two.public("alice") == one.public("alice")
    assert two.public("robert") == one.public("bob")
    assert one.seed("alice") not in (two.keys.folder / "identities" / "alice.key").read_bytes()
    two.adopt(found, "alice")  # again: it is here
    two.keys.store.wipe_identities()
    assert two.public("robert") == one.public("bob")
    two.vault.answer(NETWORK, SignDelegation("robert"))


async def test_if_one_key_is_in_the_way_none_is_created(homes: tuple[Home, Home], tmp_path: Path) -> None:
    one, two = homes
    await one.create(tmp_path / "all.age")
    two.keys.store.create("bob")
    before = two.public("bob")
    found, _ = await two.open(tmp_path / "all.age")
    for wrong, error in ((("alice", "bob"), IdentityExists), (("alice", "carol"), BackupUnusable)):
        with pytest.raises(error):
            two.adopt(found, *wrong)
    assert (two.public("bob"), two.keys.store.names()) == (before, ["bob"])


async def test_a_full_disk_in_the_middle_leaves_no_key(
    homes: tuple[Home, Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = homes
    await one.create(tmp_path / "all.age")
    found, _ = await two.open(tmp_path / "all.age")

    def fails_for_bob(path: Path, header: KeyHeader, secret: memoryview | bytes) -> None:
        if path.stem == "bob":
            raise StorageFailed(path=str(path), reason="the disk is full")
        write_key_file(path, header, secret)

    monkeypatch.setattr(key_codec, "write_key_file", fails_for_bob)
    with pytest.raises(StorageFailed):
        two.adopt(found, "alice", "bob")
    assert two.keys.store.names() == []


async def test_a_revoked_identity_is_revoked_where_it_comes_back(homes: tuple[Home, Home], tmp_path: Path) -> None:
    one, two = homes
    one.vault.answer(GATEWAY, RevokeKey("alice", one.public("bob")))
    await one.create(tmp_path / "all.age")
    found, _ = await two.open(tmp_path / "all.age")
    two.adopt(found, ("alice", "ally"), "bob")
    with pytest.raises(IdentityRevoked):
        two.vault.answer(NETWORK, SignDelegation("ally"))
    listed = two.vault.answer(GATEWAY, ListRevokedKeys())
    assert isinstance(listed, RevokedKeys)
    assert [(each.name, read_revocation(each.revocation).successor) for each in listed.keys] == [
        ("ally", one.public("bob"))
    ]


async def test_an_opened_backup_is_gone_after_the_next_one_and_at_the_end(
    homes: tuple[Home, Home], tmp_path: Path
) -> None:
    one, two = homes
    await one.create(tmp_path / "all.age")
    first, _ = await two.open(tmp_path / "all.age")
    shown, public = await two.open(tmp_path / "all.age", keep=False)
    assert (shown.token, bool(public)) == (b"", True)
    second, _ = await two.open(tmp_path / "all.age")
    with pytest.raises(BackupUnusable, match="not open any more"):
        two.adopt(first, "alice")
    two.adopt(second, "alice")
    two.backups.close()
    with pytest.raises(BackupUnusable, match="not open any more"):
        two.adopt(second, "bob")


async def test_requests_that_cannot_be_met(homes: tuple[Home, Home], tmp_path: Path) -> None:
    one, two = homes
    with pytest.raises(IdentityNotFound):
        await one.create(tmp_path / "carol.age", "carol")
    with pytest.raises(BadMessage, match="no archive"):
        await one.create(tmp_path / "odd.age", public=b"x")
    await one.create(tmp_path / "all.age")
    with pytest.raises(WrongBackupPassphrase):
        await two.open(tmp_path / "all.age", b"battery staple")
    (tmp_path / "cut.age").write_bytes((tmp_path / "all.age").read_bytes()[:-20])
    with pytest.raises(BackupUnusable, match="cut off"):
        await two.open(tmp_path / "cut.age")
    await one.keys.set_passphrase(b"of the vault\n")
    await one.keys.lock.lock()
    with pytest.raises(VaultLocked):
        await one.create(tmp_path / "locked.age")
    found, _ = await one.open(tmp_path / "all.age")
    with pytest.raises(VaultLocked, match="restoring a backup"):
        one.adopt(found, ("alice", "eve"))


def manifest(*names: str, version: int = 1) -> bytes:
    keys = [{"name": name, "id52": "0" * 52, "created": ""} for name in names]
    return encode_file(MANIFEST, msgspec.json.encode({"format": version, "created": "", "identities": keys}))


def seed_file(name: str, digits: bytes = b"0" * 64) -> bytes:
    return encode_file(f"identities/{name}/seed", digits + b"\n")


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"", "cut off"),
        (END, "empty"),
        (b"x" * 512, "no backup of fastn-p2p, or is damaged"),
        (encode_file("other.json", b"{}") + END, "no backup of fastn-p2p"),
        (encode_file(MANIFEST, b"[]") + END, "is damaged"),
        (manifest(version=2) + END, "format 2, of a newer version of fastn-p2p. Upgrade this one"),
        (manifest("alice") + END, "the key of 'alice' in it is missing"),
        (manifest("alice") + seed_file("alice") + END, "the key of 'alice' in it is missing or another one"),
        (manifest("alice") + seed_file("alice", b"g" * 64) + END, "a key in it is damaged"),
        (manifest("alice") + seed_file("alice", b"0" * 63) + END, "identities/alice/seed in it is damaged"),
        (manifest("alice") + seed_file("alice") * 2 + END, "identities/alice/seed in it is damaged"),
        (manifest()[:700], "cut off"),
        (manifest() + encode_file("identities/alice/revocation.json", b"x") + END, "damaged"),
        (manifest() + END + b"more", "something follows its end"),
        (manifest() + encode_file("big", bytes(16 << 20)) + END, "bytes"),
    ],
)
async def test_files_that_are_encrypted_but_are_no_backup(
    homes: tuple[Home, Home], tmp_path: Path, archive: bytes, reason: str
) -> None:
    with (
        opened(tmp_path / "odd.age", os.O_RDWR | os.O_CREAT) as target,
        secret_of(RIGHT) as secret,
        AgeWriter(target) as writer,
    ):
        writer.start(secret, CHEAP)
        writer.write(archive)
        writer.finish()
    with pytest.raises(BackupUnusable, match=reason):
        await homes[1].open(tmp_path / "odd.age")


def test_damaged_files_of_a_backup_are_left_out_and_named() -> None:
    with pytest.raises(ArchiveError):
        BackupContents(b"")
    contents = BackupContents(
        manifest()
        + encode_file("peers/bob.json", b"{")
        + encode_file("contacts/groups.json", b'{"groups": {"Bad Name": []}}')
        + encode_file("something/new.json", b"")
    )
    assert [each.split(" ")[0] for each in contents.problems] == ["peers/bob.json", "contacts/groups.json"]
