"""Tickets as people hand them around: printed, kept in files, piped, grown old."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.errors import DelegationExpired
from tests.support.two_daemons import TwoDaemons


@pytest.fixture
def ticket(daemons: TwoDaemons) -> str:
    """Bob's."""
    return daemons.two.cli("ticket", "bob").stdout.strip()


def test_a_ticket_says_how_long_it_is_good_and_where(daemons: TwoDaemons) -> None:
    """On standard error, so that a script has the ticket alone."""
    done = daemons.two.cli("ticket", "bob")
    assert re.fullmatch(r"fastn1[0-9a-v]+\n", done.stdout)
    assert re.search(r"^Valid until \d{4}-\d\d-\d\d \d\d:\d\d UTC \(24 hours from now\)", done.stderr)
    assert "Works only on this machine" in done.stderr
    assert "`--network local`" in done.stderr
    found = json.loads(daemons.two.cli("ticket", "bob", "--json").stdout)
    assert found["ticket"].startswith("fastn1")
    assert 0 < found["expires"] - time.time() <= 24 * 3600
    assert (found["this_machine_only"], found["relays"]) == (True, [])
    assert all(address.startswith(("127.0.0.1:", "[::1]:")) for address in found["addresses"])


def test_a_ticket_is_added_from_an_argument_a_file_and_standard_input(
    daemons: TwoDaemons, ticket: str, tmp_path: Path
) -> None:
    file = tmp_path / "bob.ticket"
    file.write_text("  " + "\n".join(re.findall(".{1,60}", ticket)) + "\r\n")  # as a mail program breaks it
    for source, input in ((ticket, None), (f"@{file}", None), ("-", ticket + "\n")):
        done = daemons.one.cli("peer", "add", source, "--name", "bob", input=input)
        assert (done.returncode, done.stdout) == (0, f"{daemons.bob}\n"), done.stderr
        assert daemons.one.cli("peer", "remove", "bob").returncode == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), ("", "is empty"), (" \n", "is empty"), ("x" * 70_000, "more than")],
)
def test_a_file_that_holds_no_ticket(daemons: TwoDaemons, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "bob.ticket"
    if content is not None:
        file.write_text(content)
    done = daemons.one.cli("peer", "add", f"@{file}", "--name", "bob")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert words in done.stderr
    assert str(file) in done.stderr


def test_standard_input_that_holds_no_ticket(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("peer", "add", "-", "--name", "bob")
    assert done.returncode == ExitCode.USAGE
    assert "standard input is empty" in done.stderr
    done = daemons.one.cli("peer", "add", "-", "--name", "bob", input="bob's ticket\n")
    assert done.returncode == ExitCode.USAGE
    assert "an ID52 has 52" in done.stderr


def test_a_second_name_for_a_peer_is_announced(daemons: TwoDaemons, ticket: str) -> None:
    daemons.one.cli("peer", "add", ticket, "--name", "bob")
    done = daemons.one.cli("peer", "add", daemons.bob, "--name", "robert")
    assert "Renamed bob to robert" in done.stderr
    assert [line.split("\t")[0] for line in daemons.one.cli("peer", "list").stdout.splitlines()] == ["robert"]
    assert "to the address book" in daemons.one.cli("peer", "add", ticket, "--name", "robert").stderr
    assert "Renamed robert to rob" in daemons.one.cli("peer", "rename", "robert", "rob").stderr
    assert daemons.one.cli("peer", "list").stdout.startswith(f"rob\t{daemons.bob}\t1\t")  # its record stays
    done = daemons.one.cli("peer", "rename", "robert", "bob")
    assert (done.returncode, "no peer named 'robert'" in done.stderr) == (ExitCode.NOT_FOUND, True)
    daemons.one.cli("peer", "add", daemons.alice, "--name", "me")
    assert daemons.one.cli("peer", "rename", "me", "rob").returncode == ExitCode.EXISTS
    for name in ("me", "rob"):
        daemons.one.cli("peer", "remove", name)


def test_an_expired_ticket_says_when() -> None:
    words = str(DelegationExpired(identity="i66fo", seconds=3600))
    hour = time.strftime("%Y-%m-%d %H", time.gmtime(time.time() - 3600))
    assert f"expired on {hour}" in words
    assert "Ask the peer for a new one" in words
