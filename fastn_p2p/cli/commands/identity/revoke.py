from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ....console.exit_codes import CommandLineError
from ....console.options import HomeOption, JsonOption, NameArgument, YesOption
from ....console.output import put_json, write_message
from ....console.parameters import Option
from ....console.passphrases import PassphraseFileOption


def run(
    name: NameArgument,
    successor: Annotated[
        str,
        Option(
            metavar="ID52",
            help="Identity that takes its place: its ID52, or the name of another one here.",
            complete="identity",
        ),
    ] = "",
    backup: Annotated[
        Path | None,
        Option(metavar="FILE", help="Take the identity from this backup, on a machine that does not have it."),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Revoke an identity whose key may be stolen.

    It goes offline for good. Peers that learn of it refuse it, and can accept the successor. This cannot be undone.
    With --backup it works on any machine with a daemon: the key comes from the backup, and the peers in it are told.
    """
    from ....console.confirmation import can_confirm, confirm_by_name

    if not yes:
        if not can_confirm():
            raise CommandLineError(
                "cannot ask for confirmation without a terminal. Use --yes to revoke without confirmation"
            )
        confirm_by_name(
            f"This revokes {name!r} at every peer, {_words(successor)}. It cannot be undone, not even with its key.",
            name,
            "Nothing was revoked.",
        )

    from ....console.control_request import with_daemon

    if backup is not None:
        _restore(home, name, backup, passphrase_file)
    elif passphrase_file is not None:
        raise CommandLineError("--passphrase-file is the passphrase of a backup: give --backup, too")
    identity = with_daemon(home, lambda client: client.identities.revoke(name, successor))
    write_message(f"Revoked {name}, {_words(identity.successor)}. It stays offline.")
    write_message("Keep this daemon running: it tells peers, and publishes the revocation every hour.")
    if json:
        put_json(identity)


def _restore(home: Path | None, name: str, backup: Path, passphrase_file: Path | None) -> None:
    """Restore an identity from a backup, offline and without protocols, and the peers who are to be told."""
    from fastn_p2p_client.ipc.messages import RestoreBackup

    from ....console.backup_files import open_backup
    from ....console.control_request import request_daemon

    opened = open_backup(home, backup, passphrase_file, keep=True)
    message = RestoreBackup(opened.token, identities=(name,), skip_peers=True, protocols=False, offline=True)
    request_daemon(home, message, opened.archive, timeout=600)


def _words(successor: str) -> str:
    return f"with the successor {successor}" if successor else "without a successor"
