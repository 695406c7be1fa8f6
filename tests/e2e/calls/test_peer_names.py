"""Peers by URI, by scanned text and by ID52 alone: on the command line and in programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

import fastn_p2p_client.ipc.messages as m
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.errors import InvalidName, PeerNameUnknown
from tests.support.two_daemons import TwoDaemons, start_two_daemons

REQUEST = ("--data", '{"message": "hi"}')


@pytest.fixture(scope="module")
def apart() -> Iterator[TwoDaemons]:
    """Daemons that do not find each other on this machine."""
    with start_two_daemons(share_host=False, echo=False) as made:
        yield made


def test_a_uri_names_peer_and_protocol(daemons: TwoDaemons) -> None:
    for arguments in (
        (f"fastn-p2p://{daemons.bob}/Echo",),
        (f"FASTN-P2P://{daemons.bob.upper()}", "Echo"),
        (f"fastn-p2p://{daemons.bob}/Echo/default", "Echo"),
    ):
        done = daemons.one.cli("call", *arguments, *REQUEST)
        assert (done.returncode, json.loads(done.stdout or "null")) == (0, {"echoed": "Echo: hi"}), done.stderr
    assert daemons.one.cli("ping", f"fastn-p2p://{daemons.bob}/Echo").returncode == 0
    assert "allowed" in daemons.one.cli("explain", f"fastn-p2p://{daemons.bob}/Echo").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("call", "fastn-p2p://$BOB/Mail", "Echo", *REQUEST), ExitCode.USAGE, "the URI names the protocol Mail"),
        (("call", "fastn-p2p://$BOB", *REQUEST), ExitCode.USAGE, "Missing argument 'PROTOCOL'"),
        (("call", "https://$BOB", "Echo", *REQUEST), ExitCode.USAGE, "begins with fastn-p2p://"),
        (("call", "fastn-p2p://bob", "Echo", *REQUEST), ExitCode.USAGE, "A petname is given without it"),
        (("ping", "https://$BOB"), ExitCode.USAGE, "begins with fastn-p2p://"),
        (("files", "ls", "fastn-p2p://$BOB/Echo"), ExitCode.USAGE, "the URI names the protocol Echo"),
    ],
)
def test_rejects_malformed_uris(daemons: TwoDaemons, arguments: tuple[str, ...], code: ExitCode, words: str) -> None:
    done = daemons.one.cli(*(each.replace("$BOB", daemons.bob) for each in arguments))
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_programs_may_use_uris(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        for peer in (f"fastn-p2p://{daemons.bob}", f"fastn-p2p://{daemons.bob}/Echo", daemons.bob.upper()):
            assert client.call("alice", peer, "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
        with pytest.raises(InvalidName):
            client.call("alice", f"fastn-p2p://{daemons.bob}/Mail", "Echo", request={"message": "hi"})


def test_uris_and_tickets_name_contacts(daemons: TwoDaemons) -> None:
    """Also where nothing is called. Only the key counts, so that an access list does not expire with a ticket."""
    uri, ticket = f"FASTN-P2P://{daemons.bob.upper()}", daemons.two.cli("ticket", "bob").stdout.strip()
    with daemons.one.client() as client:
        client.control(m.AddPeer(uri, "bob"))
        for text in (uri, ticket, f"fastn-p2p://{daemons.bob}/Echo"):
            client.control(m.BlockPeer(text))
            assert [each.id52 for each in client.control(m.ListBlocked()).blocked] == [daemons.bob]
            client.control(m.UnblockPeer(text))
            client.control(m.CreateGroup("friends"))
            client.control(m.ChangeGroup("friends", (text,)))
            assert client.control(m.ListGroups()).groups[0].members == ["bob"]
            client.control(m.ChangeGroup("friends", (), (text,)))
            client.control(m.DeleteGroup("friends"))
            client.control(m.SetProtocol("alice", "Echo", "default", (text,)))
            bindings = client.control(m.GetAccess("alice", text)).bindings
            (access,) = [each for each in bindings if (each.protocol, each.instance) == ("Echo", "default")]
            assert (access.allow, access.admits[0].why) == ([daemons.bob], daemons.bob)
        client.control(m.SetProtocol("alice", "Echo", "default", ()))
        client.control(m.RemovePeer(uri))
        with pytest.raises(PeerNameUnknown):
            client.control(m.RemovePeer(uri))
    done = daemons.one.cli("peer", "block", ticket)
    assert done.stderr == f"Blocked {daemons.bob}. Undo it: fastn-p2p peer unblock {daemons.bob}\n"
    daemons.one.cli("peer", "unblock", f"fastn-p2p://{ticket}")


def test_a_scanned_ticket_is_a_ticket(apart: TwoDaemons) -> None:
    ticket = apart.two.cli("ticket", "bob").stdout.strip()
    scanned = "\n".join(re.findall(".{1,50}", ticket.upper()))
    for text, stdin in ((scanned, None), ("-", scanned), (f"FASTN-P2P://{ticket.upper()}", None)):
        done = apart.one.cli("peer", "add", text, "--name", "bob", input=stdin)
        assert (done.returncode, done.stdout) == (0, f"{apart.bob}\n"), done.stderr
    done = apart.one.cli("call", ticket.upper(), "Echo", *REQUEST)
    assert done.returncode == 0, done.stderr


def test_an_id52_is_enough_if_a_source_knows_the_peer(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("peer", "add", daemons.bob, "--name", "bob")
    assert (done.returncode, done.stdout) == (0, f"{daemons.bob}\n")
    assert "It is connected: direct" in done.stderr
    assert daemons.one.cli("call", "bob", "Echo", *REQUEST).returncode == 0


def test_an_id52_that_no_source_knows_is_added_all_the_same(apart: TwoDaemons) -> None:
    unknown = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
    done = apart.one.cli("peer", "add", unknown, "--name", "carol")
    assert (done.returncode, done.stdout) == (0, f"{unknown}\n")
    assert "No source knows it yet" in done.stderr
    assert "fastn-p2p peer add TICKET --name carol" in done.stderr


def test_a_ticket_says_where_it_is_needed_and_shows_a_code(daemons: TwoDaemons) -> None:
    done = daemons.two.cli("ticket", "bob", "--qr")
    ticket, *code = done.stdout.splitlines()
    assert ticket.startswith("fastn1")
    assert len({len(line) for line in code}) == 1
    assert "For others the ID52 is enough" in done.stderr
