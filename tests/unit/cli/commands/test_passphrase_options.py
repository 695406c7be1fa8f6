"""Each command that asks for a passphrase takes it from a file, too."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

import fastn_p2p

PACKAGE: Final = Path(fastn_p2p.__file__).parent
ASKING: Final = ("open_passphrase", "PresentSecret", "open_backup", "unlock_at_start")
"""Functions that ask for a passphrase, or for another secret of the vault."""
COMMANDS: Final = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted((PACKAGE / "cli" / "commands").rglob("*.py"))
    if any(each in path.read_text() for each in ASKING)
]


def test_one_module_asks() -> None:
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    asking = [path for path, text in texts.items() if "from getpass import" in text or "getpass.getpass" in text]
    assert asking == ["console/passphrases.py"]


def test_the_commands_that_ask() -> None:
    assert {each.removeprefix("fastn_p2p.cli.commands.") for each in COMMANDS} == {
        *("daemon", "identity.revoke", "backup.create", "backup.restore", "backup.show", "vault.add_slot"),
        *("vault.recovery_code", "vault.remove_slot", "vault.set_passphrase", "vault.unlock"),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_each_takes_a_file(command: str) -> None:
    assert "passphrase_file" in inspect.signature(import_module(command).run).parameters
