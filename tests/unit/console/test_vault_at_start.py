"""Secret of the vault at the start of the daemon: sources, their order, and complaints about those that fail."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p.console import keyring_keys
from fastn_p2p.console.exit_codes import CommandLineError
from fastn_p2p.console.keyring_keys import keyring_key, new_keyring_key
from fastn_p2p.console.vault_at_start import CREDENTIAL, unlock_at_start
from fastn_p2p_actors.vault.owner_messages import SlotKind
from fastn_p2p_actors.vault.secret_page import SecretPage
from fastn_p2p_client.errors import HomeUnusable, InvalidPassphrase, VaultNotEncrypted, WrongPassphrase
from fastn_p2p_client.home import Home
from tests.support.file_keyring import file_keyring
from tests.support.locked_vaults import LockedVault

ONE = b"correct horse"
KEY, OTHER = (os.urandom(32).hex() for _ in range(2))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Home whose vault has a passphrase and a slot for systemd. No daemon runs."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "empty"))
    found = Home(tmp_path / "home")
    found.path.mkdir(mode=0o700)

    async def prepare(vault: LockedVault) -> None:
        await vault.set_passphrase(ONE)
        await vault.add(SlotKind.CREDENTIAL, KEY.encode(), ONE)

    run_in_vault(found, prepare)
    return found


def run_in_vault(home: Home, change: object) -> None:
    vault = LockedVault(home.vault)
    try:
        asyncio.run(change(vault))  # type: ignore[operator]
    finally:
        vault.close()


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File of the credential, in a directory that stands for systemd's."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder / CREDENTIAL


def opens(home: Home, file: Path | None = None) -> bool:
    """Return whether the daemon would start unlocked."""
    descriptor = unlock_at_start(home, file)
    if descriptor is None:
        return False
    page = SecretPage(descriptor)
    try:
        return page.is_filled
    finally:
        page.wipe()


def test_credential_opens_the_vault(home: Home, credential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (KEY, f"{KEY}\n"):
        credential.write_text(text)
        assert opens(home)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (OTHER, "the credential fastn-p2p-vault has another key than the vault"),
        (ONE.decode(), "the credential fastn-p2p-vault has another key than the vault"),
        ("", "it is empty"),
    ],
    ids=["missing", "other key", "passphrase", "empty"],
)
def test_credential_that_fails_is_named_and_the_vault_starts_locked(
    home: Home, credential: Path, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        credential.write_text(content)
    attempts = (home.vault / "attempts.json").read_bytes()
    for _ in range(2):
        assert not opens(home)
    assert said in capsys.readouterr().err
    assert (home.vault / "attempts.json").read_bytes() == attempts, "it counts as a wrong passphrase"


def test_without_a_slot_for_it_no_credential_is_read(
    home: Home, credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def change(vault: LockedVault) -> None:
        await vault.remove("credential", ONE)

    run_in_vault(home, change)
    credential.write_text(KEY)
    assert not opens(home)
    assert capsys.readouterr().err == ""


def test_passphrase_file_comes_before_the_credential(home: Home, credential: Path, tmp_path: Path) -> None:
    credential.write_text(KEY)
    file = tmp_path / "passphrase"
    file.write_bytes(ONE)
    assert opens(home, file)
    file.write_text("wrong")
    with pytest.raises(WrongPassphrase):
        opens(home, file)
    file.write_text("")
    with pytest.raises(InvalidPassphrase):
        opens(home, file)


def test_damaged_slots_stop_the_start(home: Home, credential: Path) -> None:
    home.vault_slots.write_text("{}")
    with pytest.raises(HomeUnusable, match=r"slots\.json"):
        opens(home)


def test_vault_that_is_not_encrypted_needs_nothing(tmp_path: Path) -> None:
    plain = Home(tmp_path / "plain")
    assert unlock_at_start(plain, None) is None
    with pytest.raises(VaultNotEncrypted):
        unlock_at_start(plain, tmp_path / "passphrase")


# ── the keyring ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def with_keyring(home: Home, tmp_path: Path) -> Iterator[Home]:
    """Vault with a slot whose key is in a keyring."""
    with file_keyring(tmp_path, os.environ), new_keyring_key(home, "desktop") as descriptor:
        key = os.read(descriptor, 100).strip()

        async def change(vault: LockedVault) -> None:
            await vault.add(SlotKind.KEYRING, key, ONE, "desktop")

        run_in_vault(home, change)
        yield home


def test_keyring_opens_the_vault(with_keyring: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert opens(with_keyring)
    assert capsys.readouterr().err == ""


def test_keyring_is_tried_after_a_credential_that_fails(
    with_keyring: Home, credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credential.write_text(OTHER)
    assert opens(with_keyring)
    assert "the credential fastn-p2p-vault has another key" in capsys.readouterr().err


def test_keyring_that_fails_says_why_and_the_vault_starts_locked(
    with_keyring: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keys = tmp_path / "backend" / "keys.json"
    content = keys.read_text()
    keys.write_text("{}")
    assert not opens(with_keyring)
    assert "the keyring has no key for" in capsys.readouterr().err
    keys.write_text(content[:-5])
    assert not opens(with_keyring)
    assert "the keyring refuses" in capsys.readouterr().err
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    assert not opens(with_keyring)
    assert keyring_keys.NO_BACKEND in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setitem(sys.modules, "keyring.errors", None)
    assert not opens(with_keyring)
    assert "pip install 'fastn-p2p[keyring]'" in capsys.readouterr().err


def test_keyring_that_does_not_answer_is_given_up(
    with_keyring: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe = tmp_path / "backend" / "keys.json"
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(CommandLineError, match="did not answer"), keyring_key(with_keyring, "desktop", 0.2):
        pytest.fail("there is no key")


def test_keyring_that_keeps_nothing_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    with pytest.raises(CommandLineError, match="does not keep"), new_keyring_key(home, "desktop"):
        pytest.fail("there is no key")
