"""Collects the files of a home for a backup: identities, bindings, peers. None of them has a secret key.

Each file is replaced as a whole when it changes, so reading while the daemon runs finds the old or the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fastn_p2p_client.errors import PayloadTooLarge
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import UNDECODABLE
from fastn_p2p_client.keys import id52_of

from ..storage.atomic_files import error_text
from ..storage.identity_store import IdentityStore
from ..storage.replica_reports import read_reports
from .archive import CONTACTS, IDENTITIES, MAX_PUBLIC, PEERS, REPORTS, encode_file

_CONTACT_FILES: Final = ("groups", "blocked", "revoked", "invitations")
"""Files of ``peers/`` that begin with a dot there, because they are no peers."""


class Collection(NamedTuple):
    archive: bytes
    """Files in the tar format, without an end."""
    problems: list[str]
    """Files that could not be read and are left out."""


def collect(home: Home, identities: tuple[str, ...] = (), *, peers: bool = True, protocols: bool = True) -> Collection:
    """Return the files of a home. It blocks.

    Args:
        identities: names of the identities; all of them if empty.
        peers: take the address book, groups, blocked and revoked peers, and invitations.
        protocols: take the bindings of the identities, with their configs, access lists and permissions.

    Raises:
        IdentityElsewhere: a chosen identity is a replica here. Without a choice, such identities are left out.
        PayloadTooLarge: the files are too large together.
    """
    store = IdentityStore(home)
    parts: list[bytes] = []
    problems: list[str] = []
    size = 0
    joined = {each.name: each for each in store.identities().usable if each.owner}
    for name in joined.keys() & set(identities):
        joined[name].check_owned("a backup of the identity")
    chosen = [name for name in store.names() if name in identities or not (identities or name in joined)]
    sources = list(_identity_files(home.identities, chosen, protocols=protocols))
    parts += _reports(home, {each.id52: each.name for each in store.identities(chosen).usable}, problems)
    size = sum(map(len, parts))
    if peers:
        sources += _peer_files(home.peers)
    for path, source in sources:
        try:
            data = source.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{source} cannot be read: {error_text(error)}")
            continue
        parts.append(encode_file(path, data))
        size += len(parts[-1])
        if size > MAX_PUBLIC:
            raise PayloadTooLarge(size=size, limit=MAX_PUBLIC)
    return Collection(b"".join(parts), problems)


def _identity_files(directory: Path, names: list[str], *, protocols: bool) -> Iterator[tuple[str, Path]]:
    for name in names:
        yield f"{IDENTITIES}/{name}/identity.json", directory / name / "identity.json"
        if not protocols:
            continue
        yield f"{IDENTITIES}/{name}/permissions.json", directory / name / "permissions.json"
        for source in sorted((directory / name / "protocols").glob("*/*/config.json")):
            yield f"{IDENTITIES}/{name}/{source.relative_to(directory / name)}", source


def _reports(home: Home, names: dict[str, str], problems: list[str]) -> Iterator[bytes]:
    """Yield a file for each identity with replicas: where they were when they reported last.

    Args:
        names: names of the chosen identities, by ID52.
    """
    path = home.peers / ".replicas.json"
    try:
        for each in read_reports(path):
            name = names.get(id52_of(each.identity), "")
            if name:
                yield encode_file(f"{IDENTITIES}/{name}/{REPORTS}", msgspec.json.encode(each.replicas))
    except (OSError, *UNDECODABLE) as error:
        problems.append(f"{path} cannot be read: {error}")


def _peer_files(directory: Path) -> Iterator[tuple[str, Path]]:
    for source in sorted(directory.glob("*.json")):
        if not source.name.startswith("."):
            yield f"{PEERS}/{source.name}", source
    for name in _CONTACT_FILES:
        yield f"{CONTACTS}/{name}.json", directory / f".{name}.json"
