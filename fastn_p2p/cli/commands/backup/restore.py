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
        Option("--identity", metavar="NAME", help="Restore this identity. Repeat it for more. Default: all."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        Option("--rename", metavar="OLD=NEW", help="Restore the identity OLD under the name NEW."),
    ] = None,
    rename_peer: Annotated[
        list[str] | None,
        Option("--rename-peer", metavar="OLD=NEW", help="Restore the peer OLD under the name NEW."),
    ] = None,
    skip_existing: Annotated[
        bool, Option("--skip-existing", help="Leave out what is in conflict with something here.")
    ] = False,
    without_peers: WithoutPeersOption = False,
    without_protocols: WithoutProtocolsOption = False,
    offline: Annotated[bool, Option("--offline", help="Keep the identities offline.")] = False,
    json: JsonOption = False,
    passphrase_file: PassphraseFileOption = None,
    home: HomeOption = None,
) -> None:
    """Restore a backup into this home, or into a new one.

    The daemon must run. Identities and peers that are here already stay as they are. If another one has a name or a key
    of the backup, nothing is restored, and the message names it. An identity may be online on two machines at once.
    """
    from fastn_p2p_client.ipc.messages import RestoreBackup
    from fastn_p2p_client.plain_text import plain

    from ....console.backup_files import open_backup, parse_renames
    from ....console.control_request import request_daemon
    from ....console.formatting import format_count
    from ....console.output import put_json, write_message, write_problem

    renames, peer_renames = parse_renames("--rename", rename), parse_renames("--rename-peer", rename_peer)
    opened = open_backup(home, file, passphrase_file, keep=True)
    message = RestoreBackup(
        opened.token,
        identities=tuple(dict.fromkeys(identity or ())),
        renames=renames,
        peer_renames=peer_renames,
        skip_identities=skip_existing,
        skip_peers=skip_existing,
        protocols=not without_protocols,
        peers=not without_peers,
        offline=offline,
    )
    reply = request_daemon(home, message, opened.archive, timeout=600)
    for problem in reply.problems:
        write_problem(problem)
    if json:
        put_json(
            {
                "identities": reply.identities,
                "skipped": reply.skipped,
                "peers": reply.peers,
                "permissions": reply.permissions,
                "replicas": reply.replicas,
                "owners": reply.owners,
                "problems": reply.problems,
            }
        )
        return
    for each in reply.identities:
        state = f"revoked {each.revoked[:10]}" if each.revoked else "online" if each.online else "offline"
        write_message(f"Restored {each.name} ({state}), {each.id52}")
    for name in reply.skipped:
        write_message(f"Left {name} as it is here.")
    if reply.peers:
        write_message(f"Restored {format_count(reply.peers, 'peer')}.")
    for binding, lines in reply.permissions.items():
        write_message(plain(f"The code of {binding} may again: {', '.join(lines)}"))
    for name, replicas in reply.replicas.items():
        owner = reply.owners[name]
        write_message(plain(f"{name} has {format_count(len(replicas), 'replica')}: {', '.join(replicas)}."))
        write_message(
            plain(
                f"They stay with {owner}, from which the backup is. If that is gone, have this daemon renew them: "
                f"fastn-p2p replica adopt {name}. If one was removed since the backup was made, add --without REPLICA"
            )
        )
    if any(each.online for each in reply.identities):
        write_message("They may be online on the other machine, too: peers reach either of them.")
