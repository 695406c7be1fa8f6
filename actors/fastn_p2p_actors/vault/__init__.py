"""Vault: the only process that holds secret keys of identities.

It accepts typed requests of two roles. It signs delegations and records that it builds itself, and nothing else.

- ``messages``: requests and replies, one tagged union each.
- ``access_policy``: which role may send which request; default deny.
- ``locked_memory``: locked pages for secrets.
- ``key_pair``: key pairs in locked pages; no secret is ever in a Python object.
- ``key_file``: a key on disk.
- ``sealing``, ``slots``: encryption of the files, and ways to open it.
- ``passphrase``, ``secret_forms``, ``slot_opener``, ``attempts``: secrets of slots, and attempts to open one.
- ``slot_changes``: the first passphrase, further slots, and the way back to keys in the clear.
- ``takeover``: from plain key files to encrypted ones.
- ``key_codec``: reads and writes these files, plain or sealed. ``key_store``: all keys of a home.
- ``key_lock``, ``secret_page``: opens and locks the store; the master key in memory.
- ``owner_socket``, ``owner_messages``: requests of the owner, with passphrases on descriptors.
- ``start_unlock``: the same before the daemon starts.
- ``secret_buffer``: memory of any size for secrets.
- ``age_keys``, ``age_file``: files in the age format, without a secret in a Python object.
- ``backups``: backups of keys.
- ``last_replies``: signatures that a locked vault repeats.
- ``revocation_files``: revocations of identities, beside their keys.
- ``signatures``: what the identities' keys sign.
- ``replica_files``: other daemons for which the vault signs.
- ``vault``: replies to requests.
- ``audit_log``, ``audit_events``: log of what was signed, and of what other processes report.
- ``audit_reporter``: reports of the other processes.
- ``actor``: the process: mailbox, start and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastn_p2p_actors.runtime.actor import ActorContext


async def serve(context: ActorContext) -> None:
    """Run the vault until ``context.stop_requested``."""
    from .actor import serve  # a module that imports only the messages needs neither libsodium nor ZeroMQ

    await serve(context)
