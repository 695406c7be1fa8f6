"""Slots of each kind, as commands add them: the command makes or reads the secret, and gives it to the vault."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Final

from fastn_p2p_actors.pairing.code import PREFIX, InvalidCode, known_word, new_code
from fastn_p2p_actors.runtime.process_setup import make_undumpable
from fastn_p2p_actors.vault.owner_messages import (
    AddSlot,
    CheckSecret,
    GetVaultStatus,
    RemoveSlot,
    SlotKind,
    VaultStatus,
)
from fastn_p2p_actors.vault.passphrase import Secret
from fastn_p2p_actors.vault.secret_forms import KEY_DIGITS, RECOVERY_WORDS
from fastn_p2p_client.errors import SlotExists, VaultNotEncrypted
from fastn_p2p_client.home import Home

from ..console.confirmation import can_confirm
from ..console.exit_codes import CommandLineError
from ..console.keyring_keys import delete_keyring_key, new_keyring_key
from ..console.output import is_terminal, put_json, put_raw, typed, write_message, write_result
from ..console.passphrases import open_passphrase, open_pipe
from ..console.present_secret import PresentSecret
from ..console.vault_at_start import CREDENTIAL
from ..console.vault_request import request_vault
from .vault_text import encrypted_text

CHECKED: Final = 2
"""Words of a recovery code that its owner types, to show that the code is on paper."""
_MISTAKES: Final = 3
"""Wrong words after which the code is not stored."""
_WORDS_IN_A_LINE: Final = 4


def add_passphrase(name: str, new_file: Path | None, present: PresentSecret, *, json: bool) -> None:
    """Add a passphrase. If it is the first slot, the keys are encrypted."""
    before = request_vault(present.home, GetVaultStatus())
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(present.open(before))] if before.encrypted else []
        new = stack.enter_context(open_passphrase(new_file, "New passphrase", repeat=True))
        status = request_vault(present.home, AddSlot(SlotKind.PASSPHRASE, name), new, *old)
    write_message(_added_text(status) if before.encrypted else encrypted_text(status))
    if json:
        _put_slot(status)


def add_recovery_code(name: str, present: PresentSecret, *, check: bool, json: bool, replace: bool = False) -> None:
    """Make a recovery code, show it, and store it once its owner has typed two of its words.

    Args:
        check: have the words typed.
        replace: replace the codes of before.

    Raises:
        CommandLineError: there is no terminal to type the words on, or they were wrong. Nothing was stored.
    """
    if check and not can_confirm():
        raise CommandLineError("there is no terminal to check the code on. For a script that stores it: --unchecked")
    home, before = present.home, _encrypted_status(present.home)
    make_undumpable()  # it has the words
    with present.hold(before) as secret:
        with open_pipe(secret.view) as descriptor:
            request_vault(home, CheckSecret(), descriptor)
        code = new_code(RECOVERY_WORDS)
        if check:
            _show(code)
            _check(code.split())
        with open_pipe(code.encode()) as new, open_pipe(secret.view) as descriptor:
            status = request_vault(home, AddSlot(SlotKind.RECOVERY_CODE, name, replace), new, descriptor)
        if not check:
            _write_secret(home, code, status, secret, json=json)
    write_message("The recovery code opens the vault. It is not shown again.")
    if check and json:
        _put_slot(status)


def add_credential(name: str, present: PresentSecret, *, json: bool) -> None:
    """Add a random key, and write it to standard output, from where ``systemd-creds`` encrypts it."""
    if is_terminal():
        raise CommandLineError(
            "the key must not stay on the screen. Give it to systemd: fastn-p2p vault add-slot credential | "
            f"systemd-creds encrypt --user --name={CREDENTIAL} - FILE"
        )
    home, before = present.home, _encrypted_status(present.home)
    make_undumpable()  # it has the key
    key = secrets.token_hex(KEY_DIGITS // 2)
    with present.hold(before) as secret:
        with open_pipe(key.encode()) as new, open_pipe(secret.view) as descriptor:
            status = request_vault(home, AddSlot(SlotKind.CREDENTIAL, name), new, descriptor)
        _write_secret(home, key, status, secret, json=json)
    write_message(_added_text(status))


def add_keyring(name: str, present: PresentSecret, *, json: bool) -> None:
    """Add a random key, and have the keyring of the desktop keep it."""
    home, before = present.home, _encrypted_status(present.home)
    name = name or SlotKind.KEYRING.value
    if any(slot.name == name for slot in before.slots):
        raise SlotExists(slot=name)  # before its key in the keyring is replaced
    found = Home.find(home)
    with present.open(before) as old, new_keyring_key(found, name) as new:
        try:
            status = request_vault(home, AddSlot(SlotKind.KEYRING, name), new, old)
        except BaseException:
            with contextlib.suppress(CommandLineError):
                delete_keyring_key(found, name)
            raise
    write_message(_added_text(status))
    if json:
        _put_slot(status)


def _encrypted_status(home: Path | None) -> VaultStatus:
    status = request_vault(home, GetVaultStatus())
    if not status.encrypted:
        raise VaultNotEncrypted
    return status


def _write_secret(home: Path | None, new: str, status: VaultStatus, present: Secret, *, json: bool) -> None:
    """Write the secret of the newest slot to standard output. If that fails, remove the slot: nothing can open it."""
    try:
        if json:
            _put_slot(status, secret=new)
        else:
            put_raw(new.encode() + b"\n")
    except BaseException:
        with open_pipe(present.view) as descriptor:
            request_vault(home, RemoveSlot(status.slots[-1].name), descriptor)
        raise


def _put_slot(status: VaultStatus, **more: str) -> None:
    """Write the newest slot as JSON."""
    added = status.slots[-1]
    put_json({"name": added.name, "kind": added.kind, "created": added.created, **more})


def _show(code: str) -> None:
    write_message(f"Write these {RECOVERY_WORDS} words on paper. They open the vault, and are not shown again:")
    if not is_terminal():
        write_result(code)
        return
    words = [f"{number:2} {word:<10}" for number, word in enumerate(code.split(), 1)]
    for start in range(0, len(words), _WORDS_IN_A_LINE):
        write_result("".join(words[start : start + _WORDS_IN_A_LINE]).rstrip())


def _check(words: list[str]) -> None:
    """Have two of the words typed. Raises CommandLineError."""
    wrong = 0
    for index in sorted(secrets.SystemRandom().sample(range(len(words)), CHECKED)):
        while not _is_word(typed(f"Type word {index + 1}:"), words[index]):
            wrong += 1
            if wrong >= _MISTAKES:
                raise CommandLineError("that is another word. The code was not stored: it opens nothing. Try again")
            write_message("That is another word.")


def _is_word(text: str, word: str) -> bool:
    try:
        return len(text) >= min(PREFIX, len(word)) and known_word(text.lower()) == word
    except InvalidCode:
        return False


def _added_text(status: VaultStatus) -> str:
    return f"Added the slot {status.slots[-1].name}."
