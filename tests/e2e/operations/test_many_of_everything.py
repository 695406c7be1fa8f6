"""A daemon that knows thousands of identities and peers: each question about them is answered, in pages or summed."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest
from nacl.signing import SigningKey

from fastn_p2p_actors.credentials.envelope import encode_body, seal
from fastn_p2p_actors.credentials.peer_record import EndpointEntry, build_record
from fastn_p2p_actors.storage.identity_store import IdentityFile
from fastn_p2p_client import Client
from fastn_p2p_client.control_client import list_all_identities, list_all_peers
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.keys import id52_of
from tests.support.daemons import Daemon
from tests.support.signer import Signer

PEERS: Final = 10_000
IDENTITIES: Final = 1_000


def keys(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes(SigningKey(number.to_bytes(32, "big")).verify_key)


def fill(daemon: Daemon) -> None:
    """Write as many identities and peers as an owner has after years. Signatures are checked on first use only."""
    home, now = daemon.home, int(time.time())
    delegation = Signer("any").delegation(not_before=now, not_after=now + 1000)
    home.path.mkdir(mode=0o700)
    home.peers.mkdir(mode=0o700)
    home.identities.mkdir(mode=0o700)
    for number, key in enumerate(keys(PEERS)):
        body = build_record(key, 1, now, 1000, (EndpointEntry(delegation, 1, (), ("192.0.2.1:1",)),))
        record = base64.b64encode(seal(encode_body(body), bytes(64))).decode()
        entry = {"name": f"peer{number:05}", "id52": id52_of(key), "added": "2026-01-01T00:00:00Z", "record": record}
        (home.peers / f"peer{number:05}.json").write_bytes(msgspec.json.encode(entry))
    for number, key in enumerate(keys(IDENTITIES)):
        directory = home.identities / f"identity{number:04}"
        directory.mkdir(mode=0o700)
        identity = IdentityFile(name=directory.name, id52=id52_of(key), created="2026-01-01T00:00:00Z")
        (directory / "identity.json").write_bytes(msgspec.json.encode(identity))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("many")
    daemon = Daemon(folder / "home", folder / "hosts")
    fill(daemon)
    try:
        yield daemon.start()
    finally:
        daemon.clean_up()


def test_status_has_some_of_each_and_says_how_many_there_are(full: Daemon) -> None:
    """A process that does not reply in time would be a warning; there is none."""
    status = full.status()
    assert status.warnings == []
    assert (len(status.identities), status.identities_total) == (1000, IDENTITIES)
    assert (len(status.peers), status.peers_total) == (1000, PEERS)
    assert status.peers[0].endpoints == 1
    with full.client() as client:
        small = client.control(m.GetStatus(3))
        assert [each.name for each in small.status.identities] == [f"identity{number:04}" for number in range(3)]
        assert [each.name for each in small.status.peers] == [f"peer{number:05}" for number in range(3)]
        assert (small.status.peers_total, len(small.status.processes)) == (PEERS, 3)


def test_commands_show_what_fits_and_where_the_rest_is(full: Daemon) -> None:
    shown = full.shown_status()
    assert len(shown.splitlines()) < 1000
    assert "and 900 more: `fastn-p2p identity list`" in shown
    assert "and 9,900 more: `fastn-p2p peer list`" in shown
    assert len(full.cli("peer", "list").stdout.splitlines()) == PEERS
    assert len(full.cli("list-identities").stdout.splitlines()) == IDENTITIES
    listed = msgspec.json.decode(full.cli("peer", "list", "--json").stdout)
    assert [each["name"] for each in listed] == [f"peer{number:05}" for number in range(PEERS)]


def test_pages_follow_each_other_without_a_gap(full: Daemon) -> None:
    with full.client() as client:
        page = client.control(m.ListPeers("peer09990", 5))
        assert ([each.name for each in page.peers], page.more) == (
            [f"peer0999{number}" for number in range(1, 6)],
            True,
        )
        page = client.control(m.ListPeers("peer09995", 5))
        assert ([each.name for each in page.peers], page.more) == (
            [f"peer0999{number}" for number in range(6, 10)],
            False,
        )
        names = client.control(m.ListIdentities("identity0997", 1))
        assert ([each.name for each in names.identities], names.more) == (["identity0998"], True)


async def test_whole_lists_are_put_together_from_pages(full: Daemon) -> None:
    async with Client(full.home.path) as client:
        peers = await list_all_peers(client, page=3000)
        identities = await list_all_identities(client, page=300)
    assert [each.name for each in peers] == [f"peer{number:05}" for number in range(PEERS)]
    assert [each.name for each in identities] == [f"identity{number:04}" for number in range(IDENTITIES)]


def test_programs_of_before_get_everything_at_once(full: Daemon) -> None:
    """Old programs know neither pages nor limits."""
    with full.client() as client:
        page = client.control(m.ListPeers())
        assert (len(page.peers), page.more) == (PEERS, False)


def test_the_book_can_still_be_changed(full: Daemon) -> None:
    with full.client() as client:
        client.control(m.AddPeer(Signer("carol").key.id52, "carol"))
        client.control(m.RemovePeer("carol"))
    assert full.status().peers_total == PEERS
