"""A backup of one daemon, restored at another: it works there, and nothing is ever half restored."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastn_p2p.console.vault_request import request_vault
from fastn_p2p_actors.backup.archive import ArchiveError
from fastn_p2p_actors.backup.contents import BackupContents
from fastn_p2p_actors.gateway.restore_journal import RestoreJournal
from fastn_p2p_actors.gateway.restore_plan import PlannedIdentity, RestorePlan
from fastn_p2p_actors.storage.identity_store import IdentityFile
from fastn_p2p_actors.vault.age_file import AgeWriter
from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, LockVault
from fastn_p2p_client.errors import Denied, IdentityRevoked, P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.keys import id52_of
from tests.support.age_library import decrypt, secret_of
from tests.support.daemons import DEADLINE, Daemon, eventually
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_binding
from tests.support.vault_process import scan

PASSPHRASE = "correct horse"


@dataclass
class Scene:
    """alice and amy are at ``one``, bob at ``two``, nobody at ``new``. ``cheap`` is quick to open."""

    folder: Path
    one: Daemon
    two: Daemon
    new: Daemon
    alice: str
    amy: str
    bob: str
    backup: Path
    archive: bytes
    """As another program decrypts the backup."""
    cheap: Path

    def run(self, daemon: Daemon, *arguments: str, code: int = 0, passphrase: str = "right") -> str:
        """Run a command that takes a passphrase; return what it has written."""
        ended = daemon.cli(*arguments, "--passphrase-file", str(self.folder / passphrase))
        assert ended.returncode == code, (ended.stdout, ended.stderr, daemon.report())
        return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        folder = Path(name)
        env = install_protocols(folder / "packages")
        one, two, new = made = [Daemon(folder / each, folder / "hosts", **env) for each in ("one", "two", "new")]
        (folder / "right").write_text(f"{PASSPHRASE}\n")
        (folder / "wrong").write_text("battery staple\n")
        try:
            for daemon in made:
                daemon.launch()
            for daemon in made:
                assert daemon.wait_ready(), daemon.report()
            alice, amy = one.identity("alice"), one.identity("amy", online=False, echo=False)
            bob = two.identity("bob")
            with one.client() as client:
                client.control(m.AddPeer(bob, "bobby"))
                client.control(m.CreateGroup("friends"))
                client.control(m.ChangeGroup("friends", ("bobby",)))
            add_binding(one, "alice", "Echo", "known", "bobby", max_length=1000)
            add_binding(one, "alice", "Echo", "friends", "group:friends")
            scene = Scene(folder, one, two, new, alice, amy, bob, folder / "all.age", b"", folder / "cheap.age")
            said = scene.run(one, "backup", "create", str(scene.backup))
            assert f"Backed up 2 identities to {scene.backup}" in said
            scene.archive = decrypt(scene.backup.read_bytes(), PASSPHRASE)
            encrypt(scene.cheap, scene.archive)
            yield scene
        finally:
            for daemon in made:
                daemon.clean_up()


def encrypt(path: Path, archive: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with secret_of(PASSPHRASE.encode()) as secret, AgeWriter(descriptor) as writer:
            writer.start(secret, 4)
            writer.write(archive)
            writer.finish()
    finally:
        os.close(descriptor)


def call(daemon: Daemon, identity: str, peer: str, instance: str = "default") -> P2PError | None:
    """Call Echo. Return the error, or None after a reply."""
    with daemon.client() as client:
        try:
            client.call(identity, peer, "Echo", instance, {"message": "hi"}, timeout=DEADLINE, retry=True)
        except P2PError as error:
            return error
    return None


def names(daemon: Daemon) -> dict[str, str]:
    """Return the ID52 of each identity."""
    with daemon.client() as client:
        return {each.name: each.id52 for each in client.control(m.ListIdentities()).identities}


def test_the_file_is_private_and_has_no_transport_key(scene: Scene) -> None:
    assert scene.backup.stat().st_mode & 0o777 == 0o600
    assert not list(scene.folder.glob(".*.tmp"))
    transport = (scene.one.home.vault / "transport.key").read_bytes()[HEADER_BYTES:]
    alice = (scene.one.home.vault / "identities" / "alice.key").read_bytes()[HEADER_BYTES:]
    assert alice.hex().encode() in scene.archive
    for form in (transport, transport.hex().encode(), transport.hex().upper().encode()):
        assert form not in scene.archive


def test_no_process_keeps_a_key_or_the_passphrase_in_ordinary_memory(scene: Scene) -> None:
    scene.run(scene.one, "backup", "show", str(scene.backup))
    seeds = {
        path.stem: path.read_bytes()[HEADER_BYTES:] for path in (scene.one.home.vault / "identities").glob("*.key")
    }
    needles = {f"{name} in hexadecimal": seed.hex().encode() for name, seed in seeds.items()}
    needles |= seeds | {"passphrase": PASSPHRASE.encode()}
    for actor, process in scene.one.processes().items():
        try:
            hits = scan(process["pid"], needles)
        except PermissionError:
            pytest.skip("only root may look into the memory of these processes")
        for needle, places in hits.items():
            if actor == "vault" and needle in seeds:
                assert all(place.guarded for place in places), needle
            else:
                assert not places, (actor, needle)


def test_show_lists_what_is_in_it(scene: Scene) -> None:
    shown = json.loads(scene.run(scene.new, "backup", "show", str(scene.cheap), "--json"))
    assert [(each["name"], each["id52"]) for each in shown["identities"]] == [
        ("alice", scene.alice),
        ("amy", scene.amy),
    ]
    assert {each["instance"]: each["allow"] for each in shown["identities"][0]["protocols"]} == {
        "default": [],
        "friends": ["group:friends"],
        "known": ["bobby"],
    }
    assert (shown["peers"], shown["groups"]) == ([{"name": "bobby", "id52": scene.bob}], ["friends"])
    assert "1 peer, 1 group, 0 blocked" in scene.run(scene.new, "backup", "show", str(scene.cheap))
    assert names(scene.new) == {}


def test_options_that_choose_what_is_in_it(scene: Scene) -> None:
    target = scene.folder / "amy.age"
    options = ("--identity", "amy", "--without-peers", "--without-protocols")
    assert "Backed up 1 identity" in scene.run(scene.one, "backup", "create", str(target), *options)
    before = target.read_bytes()
    assert "exists already" in scene.run(scene.one, "backup", "create", str(target), code=8)
    assert target.read_bytes() == before
    assert "no identity" in scene.run(
        scene.one, "backup", "create", str(target), "--identity", "eve", "--force", code=7
    )
    assert target.read_bytes() == before
    assert not list(scene.folder.glob(".*.tmp"))
    shown = json.loads(scene.run(scene.new, "backup", "show", str(target), "--json"))
    assert ([each["name"] for each in shown["identities"]], shown["peers"]) == (["amy"], [])


def test_files_and_passphrases_that_cannot_be_used(scene: Scene) -> None:
    odd = scene.folder / "odd.age"
    odd.write_bytes(os.urandom(1000))
    for command in ("show", "restore"):
        assert f"{odd} cannot be used: it is no file of age" in scene.run(
            scene.new, "backup", command, str(odd), code=74
        )
        said = scene.run(scene.new, "backup", command, str(scene.cheap), passphrase="wrong", code=5)
        assert "this passphrase does not open the backup" in said
        assert "cannot be read" in scene.run(scene.new, "backup", command, str(scene.folder / "none"), code=2)
    assert "no regular file" in scene.run(scene.new, "backup", "show", str(scene.folder), code=2)
    odd.write_bytes(scene.cheap.read_bytes()[:-1])
    assert "cut off" in scene.run(scene.new, "backup", "restore", str(odd), code=74)
    restore = ("backup", "restore", str(scene.cheap))
    assert "no two names" in scene.run(scene.new, *restore, "--rename", "alice", code=2)
    assert "no identity" in scene.run(scene.new, *restore, "--identity", "eve", code=7)
    assert "no identity" in scene.run(scene.new, *restore, "--rename", "eve=adam", code=7)
    assert "no peer" in scene.run(scene.new, *restore, "--rename-peer", "eve=adam", code=7)
    assert "cannot be the name" in scene.run(scene.new, *restore, "--rename", "alice=A", code=2)
    assert names(scene.new) == {}


def test_conflicts_are_named_and_resolved_by_another_name_or_left_out(scene: Scene) -> None:
    restore = ("backup", "restore", str(scene.cheap))
    with scene.two.client() as client:
        other = client.control(m.CreateIdentity("alice")).identity.id52
        client.control(m.AddPeer(other, "bobby"))
    before = names(scene.two)
    said = scene.run(scene.two, *restore, code=8)
    assert "nothing was restored: there is another identity 'alice'; there is another peer 'bobby'" in said
    assert names(scene.two) == before
    renames = ("--rename", "alice=ally", "--rename-peer", "bobby=rob", "--offline", "--without-protocols")
    said = scene.run(scene.two, *restore, *renames)
    assert f"Restored ally (offline), {scene.alice}" in said
    assert f"Restored amy (offline), {scene.amy}" in said
    assert "the identity 'ally' here has the key of 'alice'" in scene.run(scene.two, *restore, code=8)
    said = scene.run(scene.two, *restore, "--skip-existing")
    assert "Left alice as it is here" in said
    assert names(scene.two) == {**before, "ally": scene.alice, "amy": scene.amy}
    with scene.two.client() as client:
        for name in ("ally", "amy", "alice"):
            client.control(m.DeleteIdentity(name))
        for name in ("bobby", "rob"):
            client.control(m.RemovePeer(name))
        client.control(m.DeleteGroup("friends"))


def test_a_restored_identity_answers_at_another_machine(scene: Scene) -> None:
    said = scene.run(scene.new, "backup", "restore", str(scene.cheap))
    assert f"Restored alice (online), {scene.alice}" in said
    assert "may be online on the other machine, too" in said
    assert names(scene.new) == {"alice": scene.alice, "amy": scene.amy}
    with scene.new.client() as client:
        assert [(each.name, each.id52) for each in client.control(m.ListPeers()).peers] == [("bobby", scene.bob)]
        assert client.control(m.ListGroups()).groups[0].members == ["bobby"]
    eventually(lambda: call(scene.new, "alice", "bobby") is None, "the restored identity calls")
    assert call(scene.two, "bob", scene.alice) is None, "both are online"
    scene.one.stop()
    for instance in ("default", "known", "friends"):
        assert call(scene.two, "bob", scene.alice, instance) is None
    again = json.loads(scene.run(scene.new, "backup", "restore", str(scene.cheap), "--json"))
    assert (again["identities"], again["skipped"]) == ([], ["alice", "amy"])
    scene.one.start()
    audit = scene.new.cli("log", "audit", "--json").stdout
    assert '"keys-restored"' in audit
    assert PASSPHRASE not in audit


def test_an_access_list_admits_no_stranger_with_the_name_of_a_peer_that_was_left_out(scene: Scene) -> None:
    with scene.new.client() as client:
        client.control(m.DeleteIdentity("alice"))
        client.control(m.RemovePeer("bobby"))
        client.control(m.DeleteGroup("friends"))
        eve = client.control(m.CreateIdentity("eve")).identity.id52
        client.control(m.SetIdentityOnline("eve", True))
        client.control(m.AddPeer(eve, "bobby"))
    said = scene.run(scene.new, "backup", "restore", str(scene.cheap), "--identity", "alice", "--skip-existing")
    assert "Restored alice (online)" in said
    eventually(lambda: call(scene.new, "eve", scene.alice) is None, "alice is online")
    assert not isinstance(call(scene.two, "bob", scene.alice, "known"), Denied)
    with scene.new.client() as client:
        lists = {each.instance: each.access for each in scene.new.status().identities[0].bindings}
        assert lists["known"] == [scene.bob]
        assert client.control(m.GetAccess("alice", "bobby")) is not None


def staged(daemon: Daemon, name: str, *, committed: bool) -> None:
    """Leave a stopped daemon as it is when it was killed during a restore."""
    memory = LockedMemory()
    try:
        store = KeyStore(daemon.home.vault, memory, lambda: 0)
        store.open()
        key = store.create(name)
        identity = IdentityFile(name=name, id52=id52_of(key.pair.public), created=key.header.created)
        journal = RestoreJournal.create(
            daemon.home.identities, RestorePlan(identities=[PlannedIdentity(name, identity, [])])
        )
        if committed:
            journal.commit()
    finally:
        memory.wipe()


def test_a_restart_completes_a_restore_whose_keys_are_there_and_undoes_any_other(scene: Scene) -> None:
    scene.new.stop()
    staged(scene.new, "done", committed=True)
    staged(scene.new, "undone", committed=False)
    (scene.new.home.identities / ".restore-begun").mkdir()
    scene.new.start()
    eventually(lambda: not list(scene.new.home.identities.glob(".restore-*")), "every restore is finished")
    assert "done" in names(scene.new)
    assert "undone" not in names(scene.new)
    keys = {path.stem for path in (scene.new.home.vault / "identities").glob("*.key")}
    assert ("done" in keys, "undone" in keys) == (True, False)


def test_without_a_daemon_and_with_a_locked_vault_the_error_says_what_to_do(scene: Scene) -> None:
    (scene.folder / "vault").write_text("of the vault\n")
    ended = scene.new.cli("vault", "set-passphrase", "--passphrase-file", str(scene.folder / "vault"))
    assert ended.returncode == 0, ended.stderr
    request_vault(scene.new.home.path, LockVault())
    assert request_vault(scene.new.home.path, GetVaultStatus()).locked
    said = scene.run(scene.new, "backup", "create", str(scene.folder / "later.age"), code=15)
    assert "fastn-p2p vault unlock" in said
    assert "fastn-p2p vault unlock" in scene.run(scene.new, "backup", "restore", str(scene.cheap), code=15)
    assert "alice" in scene.run(scene.new, "backup", "show", str(scene.cheap))
    scene.new.stop()
    said = scene.run(scene.new, "backup", "restore", str(scene.cheap), code=3)
    assert "fastn-p2p daemon" in said


def test_the_archive_is_readable_without_this_program(scene: Scene) -> None:
    contents = BackupContents(b"".join(_public_files(scene.archive)))
    assert contents.identities["alice"].id52 == scene.alice
    with pytest.raises(ArchiveError):
        BackupContents(scene.archive[512:])


def _public_files(archive: bytes) -> Iterator[bytes]:
    import io
    import tarfile

    from fastn_p2p_actors.backup.archive import encode_file

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for each in tar:
            found = tar.extractfile(each)
            assert found is not None
            if not each.name.endswith("/seed"):
                yield encode_file(each.name, found.read())


def test_an_identity_is_revoked_from_a_backup_on_a_machine_that_has_nothing_else(scene: Scene) -> None:
    with scene.two.client() as client:
        client.control(m.AddPeer(scene.alice, "ally"))
    assert call(scene.two, "bob", "ally") is None
    bare = Daemon(scene.folder / "bare", scene.folder / "hosts")
    try:
        bare.start()
        revoke = ("identity", "revoke", "alice", "--backup", str(scene.cheap), "--yes")
        assert "does not open the backup" in scene.run(bare, *revoke, passphrase="wrong", code=5)
        assert names(bare) == {}
        said = scene.run(bare, *revoke, "--successor", scene.alice, code=2)
        assert "it is the identity that is revoked" in said
        said = scene.run(bare, *revoke, "--successor", scene.amy)
        assert f"Revoked alice, with the successor {scene.amy}" in said
        assert scene.run(bare, *revoke), "it may be repeated"
    finally:
        bare.clean_up()

    def is_revoked() -> bool:
        with scene.two.client() as client:
            return any(each.name == "ally" and each.revoked for each in client.control(m.ListPeers()).peers)

    eventually(is_revoked, "a peer of the address book in the backup is told")

    def is_marked() -> bool:
        ended = scene.one.cli("identity", "list", "--json")
        assert ended.returncode == 0, ended.stderr + scene.one.report()
        return any(each["name"] == "alice" and each["successor"] == scene.amy for each in json.loads(ended.stdout))

    assert isinstance(call(scene.one, "alice", scene.bob), IdentityRevoked)
    eventually(is_marked, "the other daemon of the identity marks it", interval=0.2)
    assert "revoked 20" in scene.one.cli("identity", "list").stdout
    assert next(each for each in scene.one.status().identities if each.name == "alice").revoked
