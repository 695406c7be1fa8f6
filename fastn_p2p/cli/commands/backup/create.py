from __future__ import annotations

from typing import Annotated

from ....console.backup_files import BackupFileArgument, WithoutPeersOption, WithoutProtocolsOption
from ....console.options import HomeOption, JsonOption
from ....console.parameters import Option
from ....console.passphrases import PassphraseFileOption


def run(
    file: BackupFileArgument,
    identity: Annotated[
        list[str] | None,
        Option(
            "--identity",
            metavar="NAME",
            help="Back up this identity. Repeat it for more. Default: all.",
            complete="identity",
        ),
    ] = None,
    without_peers: WithoutPeersOption = False,
    without_protocols: WithoutProtocolsOption = False,
    force: Annotated[bool, Option("--force", help="Replace the file if it exists.")] = False,
    passphrase_file: PassphraseFileOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a backup: identities with their keys, protocols, configs and access lists, and the peers.

    The file is encrypted with a passphrase of its own, in the age format. Without the passphrase it cannot be opened.
    The files that protocols keep are not part of it: mail, chats, received files. Neither is the transport key.
    """
    from fastn_p2p_actors.backup.collection import collect
    from fastn_p2p_actors.vault.owner_messages import CreateBackup, GetVaultStatus
    from fastn_p2p_client.errors import VaultLocked
    from fastn_p2p_client.home import Home

    from ....console.backup_files import check_new, files_in_memory, new_private_file
    from ....console.output import put_json, write_message, write_problem
    from ....console.passphrases import open_passphrase
    from ....console.vault_request import request_vault

    status = request_vault(home, GetVaultStatus())
    if status.locked:
        raise VaultLocked(what="making a backup")
    check_new(file, force=force)
    names = tuple(dict.fromkeys(identity or ()))
    found = collect(Home.find(home), names, peers=not without_peers, protocols=not without_protocols)
    with (
        files_in_memory(found.archive) as files,
        open_passphrase(passphrase_file, "Passphrase of the backup", repeat=True) as passphrase,
        new_private_file(file, force=force) as target,
    ):
        request_vault(home, CreateBackup(names), passphrase, files, target)
    for problem in found.problems:
        write_problem(f"{problem}. It is not in the backup")
    count = len(names) or status.identities
    what = "1 identity" if count == 1 else f"{count} identities"
    write_message(f"Backed up {what} to {file}. Keep the passphrase: without it the backup cannot be opened.")
    if json:
        put_json({"file": str(file), "identities": count, "problems": list(found.problems)})
