from __future__ import annotations

from ....console.backup_files import BackupFileArgument
from ....console.options import HomeOption, JsonOption
from ....console.passphrases import PassphraseFileOption


def run(
    file: BackupFileArgument,
    json: JsonOption = False,
    passphrase_file: PassphraseFileOption = None,
    home: HomeOption = None,
) -> None:
    """Show what a backup contains, without its keys. Nothing is changed.

    The daemon must run, because only its vault opens a backup. A locked vault does it, too.
    """
    from fastn_p2p_client.plain_text import plain

    from ....console.backup_files import open_backup
    from ....console.formatting import format_count
    from ....console.output import put_json, table, write_problem, write_result

    contents = open_backup(home, file, passphrase_file, keep=False).contents
    for problem in contents.problems:
        write_problem(problem)
    manifest = contents.manifest
    if json:
        put_json(
            {
                "created": manifest.created,
                "host": manifest.host,
                "identities": [
                    {
                        "name": name,
                        "id52": each.id52,
                        "online": each.online,
                        "revoked": each.revoked,
                        "replicas": [
                            {
                                "name": replica.name,
                                "endpoint": replica.endpoint.hex(),
                                "homes": contents.homes_at(name, replica.endpoint),
                            }
                            for replica in contents.replicas_of(name)
                        ],
                        "protocols": [
                            {
                                "protocol": binding.protocol,
                                "instance": binding.instance,
                                "allow": list(binding.allow),
                                "permissions": list(contents.permissions_of(name, binding)),
                            }
                            for binding in contents.bindings[name]
                        ],
                    }
                    for name, each in contents.identities.items()
                ],
                "peers": [{"name": peer.name, "id52": peer.id52} for peer in contents.peers],
                "groups": sorted(contents.groups),
                "blocked": contents.blocked,
                "invitations": [
                    {
                        "id": each.id,
                        "identity": each.identity,
                        "bindings": list(each.bindings),
                        "bearers": [bearer.id52 for bearer in each.bearers if not bearer.removed],
                    }
                    for each in contents.invitations
                ],
            }
        )
        return
    write_result(plain(f"made {manifest.created}" + (f" on {manifest.host}" if manifest.host else "")))
    rows = [
        (
            name,
            each.id52,
            ", ".join(f"{binding.protocol}/{binding.instance}" for binding in contents.bindings[name]) or "-",
            f"revoked {each.revoked[:10]}" if each.revoked else "",
        )
        for name, each in contents.identities.items()
    ]
    table(("IDENTITY", "ID52", "PROTOCOLS", ""), rows)
    replicas = [
        (name, replica.name, replica.endpoint.hex()[:16], ", ".join(contents.homes_at(name, replica.endpoint)) or "-")
        for name in contents.identities
        for replica in contents.replicas_of(name)
    ]
    if replicas:
        table(("IDENTITY", "REPLICA", "ENDPOINT", "HOME OF"), replicas)
    granted = [
        (f"{name}/{binding.protocol}/{binding.instance}", line)
        for name in contents.identities
        for binding in contents.bindings[name]
        for line in contents.permissions_of(name, binding)
    ]
    if granted:
        table(("BINDING", "ITS CODE MAY"), granted)
    parts = [
        format_count(len(contents.peers), "peer"),
        format_count(len(contents.groups), "group"),
        f"{len(contents.blocked)} blocked",
        format_count(sum(not bearer.removed for each in contents.invitations for bearer in each.bearers), "bearer")
        + " of invitations",
    ]
    write_result(", ".join(parts))
