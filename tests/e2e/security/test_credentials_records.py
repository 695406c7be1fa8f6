"""Peer records: a ticket that does not hold is refused in all interfaces alike, and files that lie in the host
directory cost a look and no trust."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client.errors import CODES, P2PError
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.tickets import Ticket
from tests.support.daemons import Daemon
from tests.support.hostile_peer import SECRET, endpoint_of
from tests.support.raw_connections import unharmed
from tests.support.signer import DAY, Signer
from tests.support.two_daemons import TwoDaemons, start_two_daemons

MALLORY: Final = Signer("mallory")
ENDPOINT: Final = endpoint_of(SECRET)


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons(echo=False) as made:
        yield made


def record(signer: Signer = MALLORY, *, starts: int = -10, ends: int = DAY, **fields: object) -> bytes:
    now = int(time.time())
    delegations = fields.pop("delegations", None) or [
        signer.delegation(endpoint=ENDPOINT, not_before=now + starts, not_after=now + DAY)
    ]
    given = {"issued": now + starts, "expires": now + ends, "delegations": delegations, "relays": (), **fields}
    return signer.record(**given)  # type: ignore[arg-type]


def altered(blob: bytes, position: int) -> bytes:
    changed = bytearray(blob)
    changed[position] ^= 1
    return bytes(changed)


def refusal(daemon: Daemon, peer: str, name: str) -> str:
    """The code with which the client API, and in the same words the command line, refuse to add the peer."""
    with daemon.client() as client, pytest.raises(P2PError) as caught:
        client.control(m.AddPeer(peer, name))
    ended = daemon.cli("peer", "add", peer, "--name", name)
    assert ended.returncode not in (0, 1), ended
    assert ended.stdout == ""
    words = str(caught.value).split(" ago")[0].rstrip("0123456789 s")  # a second may have passed
    assert words[:60] in ended.stderr, (words, ended.stderr)
    return caught.value.code


# ── tickets ──────────────────────────────────────────────────────────────────────────────────────

OTHER: Final = Signer("other")
BAD_RECORDS: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "one that has expired": (lambda: record(starts=-DAY, ends=-100), "delegation-expired"),
    "one from the future": (lambda: record(starts=1000), "delegation-not-yet-valid"),
    "one with another signature": (lambda: altered(record(), -1), "bad-signature"),
    "one by another key": (lambda: record(identity=bytes(OTHER.key)), "bad-signature"),
    "one whose delegation is another's": (lambda: record(delegations=[OTHER.delegation()]), "bad-signature"),
    "one whose delegation has expired": (
        lambda: record(delegations=[MALLORY.delegation(not_before=1000, not_after=2000)]),
        "delegation-expired",
    ),
    "one that lasts too long": (lambda: record(ends=2 * DAY + 60), "bad-message"),
    "one for ever": (lambda: record(issued=0, expires=2**40 - 1), "bad-message"),
    "one whose delegation is for ever": (
        lambda: record(delegations=[MALLORY.delegation(endpoint=ENDPOINT, not_before=0, not_after=2**40 - 1)]),
        "bad-message",
    ),
    "one with an address that is none": (lambda: record(addresses=("example.com:80",)), "bad-message"),
    "one with a relay that is none": (lambda: record(relays=("file:///etc/passwd",)), "bad-message"),
    "one of another version": (lambda: record(version=2), "bad-message"),
    "one with something behind it": (lambda: record() + b"\0", "invalid-ticket"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_ticket_that_does_not_hold_is_refused(daemons: TwoDaemons, case: str) -> None:
    make, code = BAD_RECORDS[case]
    blob = make()
    text = str(Ticket.of_record(blob)) if code != "invalid-ticket" else str(Ticket.of_record(record()))[:-4] + "!!!!"
    before = peers(daemons.one)
    assert code in CODES
    assert refusal(daemons.one, text, "mallory") == code
    assert peers(daemons.one) == before


def peers(daemon: Daemon) -> list[tuple[str, str, int]]:
    return [(peer.name, peer.id52, peer.endpoints) for peer in daemon.status().peers]


def test_older_ticket_after_a_newer_one_is_a_replay(daemons: TwoDaemons) -> None:
    """The older ticket stays rejected after a restart."""
    with daemons.two.client() as client:
        tickets = []
        for _ in range(2):
            reply = client.control(m.GetTicket("bob"))
            tickets.append(reply.ticket)
    older, newer = tickets
    with daemons.one.client() as client:
        client.control(m.AddPeer(newer, "bob"))
        assert refusal(daemons.one, older, "bob") == "record-replayed"
        client.control(m.AddPeer(newer, "bob"))  # the newest may come again
        assert refusal(daemons.one, older, "bobby") == "record-replayed"
        assert client.call("alice", older, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
        assert client.call("alice", "bob", "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
        client.control(m.RemovePeer("bob"))
        assert refusal(daemons.one, older, "bob") == "record-replayed"
    assert daemons.one.stop() == 0
    daemons.one.start()
    assert refusal(daemons.one, older, "bob") == "record-replayed"


def test_calling_a_ticket_that_does_not_hold_says_why(daemons: TwoDaemons) -> None:
    for case in ("one that has expired", "one with another signature", "one from the future"):
        make, code = BAD_RECORDS[case]
        with daemons.one.client() as client, pytest.raises(P2PError) as caught:
            client.call("alice", str(Ticket.of_record(make())), "Echo")
        assert caught.value.code == code


def test_damaged_memory_of_what_was_seen_is_a_warning(tmp_path: Path) -> None:
    """The daemon starts nevertheless."""
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts")
    seen = daemon.home.peers / ".seen.json"
    try:
        for text in ('{"epochs": {"zz": 1}}', '{"sequences": {"00": [1]}}', "[" * 100_000):
            seen.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            seen.parent.parent.chmod(0o700)
            seen.write_text(text)
            daemon.start()
            assert any(".seen.json" in warning for warning in daemon.status().warnings), text
            daemon.stop()
    finally:
        daemon.clean_up()


# ── the host directory ───────────────────────────────────────────────────────────────────────────


def littered(hosts: Path, id52: str, genuine: bytes) -> None:
    """Fill the host directory with invalid records of this identity."""
    (hosts / f"{id52}.0000000000000000").write_bytes(b"")
    (hosts / f"{id52}.0000000000000001").write_bytes(altered(genuine, -1))
    (hosts / f"{id52}.0000000000000002").write_bytes(altered(genuine, len(genuine) // 2))
    (hosts / f"{id52}.0000000000000003").write_bytes(record())
    (hosts / f"{id52}.0000000000000004").write_bytes(genuine[:-1])
    (hosts / f"{id52}.0000000000000005").symlink_to("/dev/zero")
    (hosts / f"{id52}.0000000000000006").symlink_to(f"{id52}.0000000000000006")
    (hosts / f"{id52}.0000000000000007").mkdir()
    os.mkfifo(hosts / f"{id52}.0000000000000008")
    with (hosts / f"{id52}.0000000000000009").open("wb") as huge:
        huge.truncate(1 << 40)
    os.mknod(hosts / f"{id52}.000000000000000a", 0o600 | 0o140000)  # a socket
    (hosts / f"{id52}.000000000000000b").write_bytes(b"\x92" + b"\x91" * 16_000)
    (hosts / f"{id52}.000000000000000c").write_bytes(genuine)
    (hosts / f"{id52}.000000000000000c").chmod(0)


def test_hostile_files_in_the_host_directory_do_no_harm(tmp_path: Path) -> None:
    """Hostile files are neither used nor waited for. Genuine records beside them are used."""
    with start_two_daemons(echo=False) as daemons:
        hosts = Path(daemons.one.env["FASTN_HOST_DIRECTORY"])
        (published,) = hosts.glob(f"{daemons.bob}.*")
        genuine = published.read_bytes()
        littered(hosts, str(MALLORY.key), record())
        with unharmed(daemons.one, grows_by=16 * 1024 * 1024), daemons.one.client() as client:
            (hosts / f"{MALLORY.key}.000000000000000c").unlink()  # the genuine one of an identity that is nowhere
            (hosts / f"{MALLORY.key}.0000000000000003").unlink()
            started = time.monotonic()
            with pytest.raises(P2PError) as caught:
                client.call("alice", str(MALLORY.key), "Echo", timeout=60)
            assert caught.value.code == "peer-unknown"
            assert time.monotonic() - started < 50, "nobody waits until the time is over"
            littered(hosts, daemons.bob, genuine)
            assert client.call("alice", daemons.bob, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}


def test_record_that_names_another_identity_or_is_forged_is_not_used(tmp_path: Path) -> None:
    """A forger leaves records of bob that lead to the forger's own endpoint."""
    with start_two_daemons(echo=False, share_host=False) as daemons:
        hosts = Path(daemons.one.env["FASTN_HOST_DIRECTORY"])
        bob = daemons.bob
        now = int(time.time())
        for number, blob in enumerate(
            (
                record(),
                record(identity=bytes(Ticket(ticket_of(daemons.two)).identity)),
                record(
                    delegations=[
                        MALLORY.delegation(
                            identity=bytes(Ticket(ticket_of(daemons.two)).identity),
                            endpoint=ENDPOINT,
                            not_before=now,
                            not_after=now + DAY,
                        )
                    ]
                ),
            )
        ):
            (hosts / f"{bob}.{number:016}").write_bytes(blob)
        with daemons.one.client() as client, pytest.raises(P2PError) as caught:
            client.call("alice", bob, "Echo", timeout=30)
        assert caught.value.code == "peer-unknown"


def ticket_of(daemon: Daemon) -> str:
    with daemon.client() as client:
        reply = client.control(m.GetTicket(""))
    assert isinstance(reply, m.TicketText)
    return reply.ticket


def test_something_in_the_way_of_our_own_record_does_no_harm(tmp_path: Path) -> None:
    """A directory, a FIFO or a link where a daemon publishes: the identity is online all the same."""
    daemon = Daemon(tmp_path / "home", tmp_path / "hosts")
    try:
        daemon.start()
        id52 = daemon.identity("alice")
        (published,) = (tmp_path / "hosts").glob(f"{id52}.*")
        precious = tmp_path / "precious"
        precious.write_text("untouched")
        obstacles: list[Callable[[], object]] = [
            published.mkdir,
            lambda: os.mkfifo(published),
            lambda: published.symlink_to(precious),
            lambda: os.mkfifo(published.with_name(f".{published.name}.tmp")),
        ]
        for obstruct in obstacles:
            with unharmed(daemon, except_for=("identity-alice",)), daemon.client() as client:
                client.control(m.SetIdentityOnline("alice", False))
                published.unlink(missing_ok=True)
                obstruct()
                client.control(m.SetIdentityOnline("alice", True))
                assert client.call("alice", id52, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
                client.control(m.SetIdentityOnline("alice", False))
                if published.is_dir():
                    published.rmdir()
                client.control(m.SetIdentityOnline("alice", True))
        assert precious.read_text() == "untouched"
    finally:
        daemon.clean_up()
