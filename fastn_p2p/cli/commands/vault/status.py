from __future__ import annotations

from ....console.options import HomeOption, JsonOption


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """Show whether the keys are encrypted, and whether the vault is locked.

    Prints the state, and each slot: a way to unlock the vault, its kind, and when it was set. Exits with 0 in every
    state.
    """
    from fastn_p2p_actors.vault.owner_messages import GetVaultStatus
    from fastn_p2p_client.plain_text import plain

    from ....console.output import put_json, write_result
    from ....console.vault_request import request_vault
    from ...vault_text import status_record, vault_state

    status = request_vault(home, GetVaultStatus())
    if json:
        put_json(status_record(status))
        return
    write_result(vault_state(encrypted=status.encrypted, locked=status.locked, until=status.until))
    for slot in status.slots:
        kind = "" if slot.name == slot.kind else f" ({slot.kind})"
        write_result(plain(f"slot {slot.name}{kind}, set {slot.created}"))
    if status.wait:
        write_result(f"after wrong passphrases, the next one can be tried in {status.wait} s")
