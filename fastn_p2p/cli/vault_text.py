"""State of the vault in words and as JSON, for ``status``, ``vault status``, ``vault lock`` and ``vault unlock``."""

from __future__ import annotations

import re
from typing import Any, Final

from fastn_p2p_actors.vault.owner_messages import LONGEST_UNLOCK, VaultStatus

from ..console.exit_codes import CommandLineError
from ..console.formatting import format_count, local_time

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}


def parse_seconds(text: str) -> int:
    """Return the seconds of a time such as ``30m``, ``8h`` or ``7d``; 0 for an empty text.

    Raises:
        CommandLineError: the text is no time, or longer than a year.
    """
    if not text:
        return 0
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found is not None else 0
    if not 0 < seconds <= LONGEST_UNLOCK:
        raise CommandLineError(f"--for: {text!r} is no time up to a year. Give 30m, 8h or 7d")
    return seconds


def vault_state(*, encrypted: bool, locked: bool, until: int) -> str:
    """Return one line, with the command that comes next.

    Args:
        encrypted: whether the keys on disk are encrypted.
        locked: whether they cannot be used at the moment.
        until: Unix time at which the vault locks itself; 0 for never.
    """
    if not encrypted:
        return "keys not encrypted: fastn-p2p vault set-passphrase"
    if locked:
        return "locked: fastn-p2p vault unlock"
    return f"unlocked until {local_time(until)}" if until else "unlocked"


def encrypted_text(status: VaultStatus) -> str:
    """Return the line after the first passphrase was set."""
    keys = format_count(status.identities + 1, "key")  # and the transport key
    return f"Encrypted {keys}. Keep the passphrase: without it they are lost."


def status_record(status: VaultStatus) -> dict[str, Any]:
    """Return the state for ``--json``. ``unlock`` is the command that unlocks the vault, if it is locked."""
    return {
        "encrypted": status.encrypted,
        "locked": status.locked,
        "locks_at": status.until,
        "unlock": "fastn-p2p vault unlock" if status.locked else "",
        "slots": [{"name": each.name, "kind": each.kind, "created": each.created} for each in status.slots],
        "wait": status.wait,
        "identities": status.identities,
    }
