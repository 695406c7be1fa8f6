from __future__ import annotations

from ....console.options import HomeOption, JsonOption


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """Lock the vault: wipe the keys from memory until the passphrase is given again.

    Identities that are online stay online for up to 24 hours, by delegations that were signed before. Nothing can be
    created, deleted or brought online.
    """
    from fastn_p2p_actors.vault.owner_messages import LockVault

    from ....console.output import put_json, write_message
    from ....console.vault_request import request_vault
    from ...vault_text import status_record

    status = request_vault(home, LockVault())
    write_message("Locked the vault. Identities stay online for up to 24 hours. Unlock it: fastn-p2p vault unlock")
    if json:
        put_json(status_record(status))
