"""The vault with a passphrase in a running daemon, by the commands of a user."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p_actors.vault.passphrase import PRODUCT_COST
from fastn_p2p_client.errors import VaultLocked
from fastn_p2p_client.ipc.messages import ListPeers, VaultInfo
from tests.support.daemons import eventually
from tests.support.file_keyring import file_keyring
from tests.support.locked_vaults import LockedVault
from tests.support.secret_service import has_secret_service, secret_service
from tests.support.terminals import Tty, on_terminal
from tests.support.vault_owners import Owner

LOCKED = 15
"""Exit code of ``vault-locked``."""
NUMBERED = re.compile(r"^ *\d+ [a-z]")
"""Row with numbered words of a recovery code."""
ASKED = re.compile(r"Type word (\d+):")


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    """With alice online, and a passphrase that was set while she was."""
    folder = Path(tempfile.mkdtemp(prefix="fastn-"))
    owner = Owner(folder)
    try:
        owner.daemon.start()
        owner.daemon.identity("alice")
        assert "keys not encrypted: fastn-p2p vault set-passphrase" in owner.daemon.shown_status()
        assert "fastn-p2p vault set-passphrase" in owner.vault("lock", code=2)
        said = owner.vault("set-passphrase", "--passphrase-file", str(owner.right))
        assert said == "Encrypted 2 keys. Keep the passphrase: without it they are lost.\n"
        assert owner.echo()
        state = json.loads(owner.vault("status", "--json"))
        assert (state["encrypted"], state["locked"], state["identities"]) == (True, False, 1)
        (slot,) = json.loads((owner.daemon.home.vault / "slots.json").read_bytes())["slots"]
        assert (slot["kind"], slot["memory"], slot["passes"]) == (
            "passphrase",
            PRODUCT_COST.memory,
            PRODUCT_COST.passes,
        )
        owner.daemon.stop()
        asyncio.run(make_cheap(owner.daemon.home.vault))
        owner.daemon.launch("--passphrase-file", str(owner.right))
        assert owner.daemon.wait_ready(), owner.daemon.report()
        assert "1 identity online" in "".join(owner.daemon.errors)
        yield owner
    finally:
        owner.daemon.clean_up()
        shutil.rmtree(folder)


async def make_cheap(folder: Path) -> None:
    """Set the same passphrase once more, with a cost that suits tests. The daemon does not run."""
    vault = LockedVault(folder)
    await vault.set_passphrase(b"correct horse", b"correct horse")
    vault.close()


def test_locked_vault_keeps_what_is_online_online(owner: Owner) -> None:
    said = owner.vault("lock")
    try:
        assert "fastn-p2p vault unlock" in said
        assert json.loads(owner.vault("status", "--json"))["unlock"] == "fastn-p2p vault unlock"
        assert owner.echo()
        for command in (("create-identity", "bob"), ("delete-identity", "alice", "--yes")):
            refused = owner.daemon.cli(*command)
            assert refused.returncode == LOCKED
            assert refused.stderr.endswith("Unlock it: fastn-p2p vault unlock\n")
        assert owner.daemon.cli("ticket", "alice").returncode == 0
        before = owner.daemon.kill_actor("network")
        owner.daemon.wait_actor("network", before)
        eventually(owner.echo, "alice is online again, on what was signed before")
        assert "locked: fastn-p2p vault unlock" in owner.daemon.shown_status()
    finally:
        assert owner.unlock() == "The vault is unlocked.\n"
    owner.daemon.identity("bob", online=False, echo=False)


def test_crashed_vault_is_unlocked_again_and_a_locked_one_is_not(owner: Owner) -> None:
    assert owner.unlock("--for", "8h").startswith("The vault is unlocked until ")
    until = owner.state().until
    before = owner.daemon.kill_actor("vault")
    before = owner.daemon.wait_actor("vault", before)
    assert owner.state().locked is False
    assert abs(owner.state().until - until) <= 2
    owner.lock()
    owner.daemon.kill_actor("vault")
    owner.daemon.wait_actor("vault", before)
    assert owner.state().locked is True
    assert owner.echo()
    owner.unlock()


def test_daemon_that_starts_without_the_passphrase_is_locked_until_it_comes(owner: Owner) -> None:
    owner.daemon.stop()
    owner.daemon.start()
    assert "the vault is locked: fastn-p2p vault unlock" in "".join(owner.daemon.errors)
    for command in (("call", "alice", "Echo", "--data", "{}"), ("pair",), ("pair", "alice"), ("ticket", "alice")):
        refused = owner.daemon.cli(*command)
        assert (refused.returncode, "fastn-p2p vault unlock" in refused.stderr) == (LOCKED, True), refused.stderr
    with owner.daemon.client() as client, pytest.raises(VaultLocked):
        client.control(ListPeers())
    shown = owner.daemon.shown_status()
    assert "locked: fastn-p2p vault unlock" in shown
    assert "no identity is online" in shown
    status = owner.daemon.status()
    assert (status.vault, status.identities[0].online) == (VaultInfo(encrypted=True, locked=True), False)
    assert "does not open the vault" in owner.vault("unlock", "--passphrase-file", str(owner.wrong), code=5)
    owner.unlock()
    eventually(owner.is_online, "alice is online")


def test_without_a_terminal_each_command_says_how_to_give_the_passphrase(owner: Owner) -> None:
    for command in (["unlock"], ["set-passphrase"], ["add-slot", "passphrase"], ["add-slot", "credential"]):
        assert "--passphrase-file" in owner.vault(*command, code=2)
    assert "--unchecked" in owner.vault("recovery-code", code=2)
    assert "no time" in owner.vault("unlock", "--for", "soon", code=2)
    assert "cannot be read" in owner.vault("unlock", "--passphrase-file", "/nowhere", code=2)


# ── slots ────────────────────────────────────────────────────────────────────────────────────────


def test_slots_come_and_go_by_commands(owner: Owner, tmp_path: Path) -> None:
    present = ("--passphrase-file", str(owner.right))
    key, code = tmp_path / "key", tmp_path / "code"
    key.write_text(owner.output("add-slot", "credential", "--name", "server", *present))
    code.write_text(owner.output("recovery-code", "--unchecked", *present).upper())
    slots = json.loads(owner.vault("status", "--json"))["slots"]
    assert [(slot["name"], slot["kind"]) for slot in slots] == [
        ("passphrase", "passphrase"),
        ("server", "credential"),
        ("recovery-code", "recovery-code"),
    ]
    assert "slot server (credential), set 20" in owner.vault("status")
    for file in (key, code):
        owner.lock()
        assert owner.vault("unlock", "--passphrase-file", str(file)) == "The vault is unlocked.\n"
    assert "has a slot named server" in owner.vault("add-slot", "credential", "--name", "server", *present, code=8)
    assert "no slot named nothing" in owner.vault("remove-slot", "nothing", *present, code=7)
    assert "must open another slot" in owner.vault("remove-slot", "server", "--passphrase-file", str(key), code=2)
    for name in ("server", "recovery-code"):
        assert owner.vault("remove-slot", name, *present) == f"Removed the slot {name}.\n"
    assert "--decrypt" in owner.vault("remove-slot", "passphrase", *present, code=2)
    owner.lock()
    assert "does not open the vault" in owner.vault("unlock", "--passphrase-file", str(key), code=5)
    owner.unlock()


def shown_words(tty: Tty) -> list[str]:
    """Wait until twelve numbered words are on the screen, and return them."""
    found: list[str] = []

    def all_there(rows: list[str]) -> bool:
        found[:] = [word for row in rows if NUMBERED.match(row) for word in row.split() if word.isalpha()]
        return len(found) == 12 and any("Type word" in row for row in rows)

    tty.until(all_there, "the words, and the question")
    return found


def test_recovery_code_is_stored_once_two_of_its_words_were_typed(owner: Owner) -> None:
    command = ("vault", "recovery-code", "--passphrase-file", str(owner.right))
    with on_terminal(owner.daemon.env, *command, columns=100) as tty:
        shown_words(tty)
        for number in range(3):
            tty.type("nonsense\n")
            tty.until(lambda rows: str(rows).count("nonsense") > number, "the typed word")  # noqa: B023
        assert tty.ends() == 2
    assert [slot.name for slot in owner.state().slots] == ["passphrase"]
    with on_terminal(owner.daemon.env, *command, columns=100) as tty:
        words = shown_words(tty)
        for number in (1, 2):
            tty.until(lambda rows: len(ASKED.findall(" ".join(rows))) == number, "a question")  # noqa: B023
            tty.type(words[int(ASKED.findall(" ".join(tty.rows))[-1]) - 1][:4] + "\n")
        tty.until(lambda rows: any("not shown again." in row for row in rows[-20:]), "the end")
        assert tty.ends() == 0
    assert [slot.name for slot in owner.state().slots] == ["passphrase", "recovery-code"]
    owner.lock()
    with on_terminal(owner.daemon.env, "vault", "unlock", columns=100) as tty:
        tty.until(lambda rows: "Passphrase of the vault, or recovery code" in rows[0], "the question")
        tty.type(" ".join(words) + "\n")
        tty.until(lambda rows: any("The vault is unlocked." in row for row in rows), "the answer")
    owner.vault("remove-slot", "recovery-code", "--passphrase-file", str(owner.right))


def test_credential_of_systemd_unlocks_the_vault_at_the_start(owner: Owner, tmp_path: Path) -> None:
    key = owner.output("add-slot", "credential", "--passphrase-file", str(owner.right))
    (tmp_path / "fastn-p2p-vault").write_text(key)
    owner.daemon.stop()
    owner.daemon.env["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    try:
        owner.daemon.start()
    finally:
        del owner.daemon.env["CREDENTIALS_DIRECTORY"]
    assert "1 identity online" in "".join(owner.daemon.errors)
    assert owner.state().locked is False
    eventually(owner.is_online, "alice is online")
    before = owner.daemon.kill_actor("vault")
    owner.daemon.wait_actor("vault", before)
    assert owner.state().locked is False
    owner.vault("remove-slot", "credential", "--passphrase-file", str(owner.right))


def test_keyring_of_the_desktop_keeps_the_key_of_a_slot(owner: Owner, tmp_path: Path) -> None:
    present = ("--passphrase-file", str(owner.right))
    assert "vault add-slot keyring" in owner.vault("unlock", "--keyring", code=2)
    with file_keyring(tmp_path, owner.daemon.env) as keys:
        assert owner.vault("add-slot", "keyring", *present) == "Added the slot keyring.\n"
        assert [len(key) for key in keys().values()] == [64]
        owner.lock()
        assert owner.vault("unlock", "--keyring") == "The vault is unlocked.\n"
        assert "wrong" not in owner.vault("add-slot", "keyring", "--name", "other", "--keyring")
        assert len(keys()) == 2
        owner.vault("remove-slot", "other", *present)
        assert "does not open" in owner.vault(
            "add-slot", "keyring", "--name", "x", "--passphrase-file", str(owner.wrong), code=5
        )
        assert len(keys()) == 1
        owner.vault("remove-slot", "keyring", *present)
        assert keys() == {}


@pytest.mark.skipif(not has_secret_service(), reason="no GNOME Keyring, or no D-Bus")
def test_secret_service_of_a_desktop_keeps_the_key_of_a_slot(owner: Owner, tmp_path: Path) -> None:
    present = ("--passphrase-file", str(owner.right))
    with secret_service(tmp_path, owner.daemon.env):

        def add() -> str:
            done = owner.daemon.cli("vault", "add-slot", "keyring", *present)
            return done.stdout + done.stderr if done.returncode == 0 else ""

        assert eventually(add, "the keyring takes a key") == "Added the slot keyring.\n"
        owner.lock()
        assert owner.vault("unlock", "--keyring") == "The vault is unlocked.\n"
        owner.daemon.stop()
        owner.daemon.start()
        assert owner.state().locked is False
        owner.vault("remove-slot", "keyring", *present)
        assert "vault add-slot keyring" in owner.vault("unlock", "--keyring", code=2)


# ── the terminal ─────────────────────────────────────────────────────────────────────────────────


def test_terminal_is_asked_at_the_start_and_by_each_command(owner: Owner) -> None:
    owner.daemon.stop()
    refused = owner.daemon.cli("daemon", "--passphrase-file", str(owner.wrong))
    assert (refused.returncode, "does not open the vault" in refused.stderr) == (5, True)
    with on_terminal(owner.daemon.env, "daemon", columns=200) as tty:
        tty.until(lambda rows: "Passphrase of the vault" in rows[0], "the question")
        tty.type("wrong\n")
        tty.until(lambda rows: any("does not open the vault" in row for row in rows), "the error")
        tty.until(lambda rows: sum("Passphrase of the vault" in row for row in rows) == 2, "the question again")
        tty.type("correct horse\n")
        tty.until(lambda rows: any("1 identity online" in row for row in rows), "ready")
        assert b"correct" not in tty.raw
        owner.lock()
        with on_terminal(owner.daemon.env, "vault", "unlock", columns=200) as other:
            other.until(lambda rows: "Passphrase of the vault" in rows[0], "the question")
            other.type("correct horse\n")
            other.until(lambda rows: any("The vault is unlocked." in row for row in rows), "the answer")
            assert other.ends() == 0
        assert owner.state().locked is False
        owner.daemon.remember()
        tty.type(b"\x03")
        assert tty.ends() == 0
