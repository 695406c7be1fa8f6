"""``fastn-p2p pair`` as an owner types it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemons import CLI, Daemon, eventually
from tests.support.terminals import on_terminal
from tests.support.two_daemons import TwoDaemons, start_two_daemons


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons(echo=False) as made:
        yield made


@contextmanager
def showing(daemon: Daemon, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that shows words, and the first line that it prints."""
    command = [*CLI, "pair", *options]
    process = subprocess.Popen(command, env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()  # it takes its words back
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()


def test_one_side_shows_words_and_the_other_types_them(daemons: TwoDaemons) -> None:
    with showing(daemons.one) as (shown, words):
        joined = daemons.two.cli("pair", *words.split())
        out, err = shown.communicate(timeout=60)
    assert (shown.returncode, joined.returncode) == (0, 0), err + joined.stderr
    assert f"On the other machine: fastn-p2p pair {words}\n" in err
    assert "only daemons on this machine find these words" in err
    assert out == f"bob\t{daemons.bob}\n"
    assert joined.stdout == f"alice\t{daemons.alice}\n"
    (fingerprint,) = (line for line in err.splitlines() if line.startswith("Fingerprint: "))
    assert fingerprint.partition(".")[0] in joined.stderr
    assert "Added bob to the address book." in err
    assert daemons.one.cli("peer", "list").stdout.startswith(f"bob\t{daemons.bob}\t1\t")
    for daemon, own, peer, id52 in (
        (daemons.one, "alice", "bob", daemons.bob),
        (daemons.two, "bob", "alice", daemons.alice),
    ):
        (event,) = eventually(partial(_paired, daemon.home.audit_log), "the pairing is in the audit log")
        assert (event["identity"], event["name"], event["peer"]) == (own, peer, id52)


def _paired(path: Path) -> list[dict[str, object]]:
    lines = path.read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in events if event["event"] == "paired"]


def test_scripts_read_json_and_pass_the_words_on_standard_input(daemons: TwoDaemons) -> None:
    with showing(daemons.one, "alice", "--json", "--name", "robert") as (shown, line):
        first = json.loads(line)
        words = first["words"].replace(" ", "-").upper()
        joined = daemons.two.cli("pair", "-", "--json", "--as", "bob", input=words + "\n")
        out, _ = shown.communicate(timeout=60)
    assert first["expires"] > 0
    host, joiner = json.loads(out), json.loads(joined.stdout)
    assert (host["name"], host["id52"], joiner["name"], joiner["id52"]) == (
        "robert",
        daemons.bob,
        "alice",
        daemons.alice,
    )
    assert host["fingerprint"] == joiner["fingerprint"]
    assert set(host) == set(joiner) == {"name", "id52", "fingerprint", "renamed_from", "updated"}


def test_an_interrupted_command_takes_its_words_back(daemons: TwoDaemons) -> None:
    hosts = Path(daemons.one.env["FASTN_HOST_DIRECTORY"])
    with showing(daemons.one) as (shown, words):
        assert len(words.split()) == 4
        assert list(hosts.glob("pairing-*"))
        shown.send_signal(signal.SIGTERM)
        shown.communicate(timeout=60)
    assert shown.returncode == 130
    assert not list(hosts.glob("pairing-*"))


def test_the_words_as_a_qr_code(daemons: TwoDaemons) -> None:
    with showing(daemons.one, "--qr") as (shown, words):
        assert shown.stdout is not None
        line = shown.stdout.readline()
    assert len(words.split()) == 4
    assert set(line.strip("\n")) <= set("█▀▄ ")


def test_a_terminal_shows_the_qr_code_too_and_ctrl_c_ends_it(daemons: TwoDaemons) -> None:
    with on_terminal(daemons.one.env, "pair", rows=60, columns=120) as tty:
        tty.until(lambda rows: any("█" in row for row in rows), "the QR code")
        tty.until(lambda rows: any("Found by: this machine" in row for row in rows), "where the words are found")
        tty.type("\x03")
        assert tty.ends() == 130
    assert not list(Path(daemons.one.env["FASTN_HOST_DIRECTORY"]).glob("pairing-*"))


def test_errors_end_with_their_exit_codes(daemons: TwoDaemons) -> None:
    ended = daemons.two.cli("pair", "tunnel", "bundle", "sonic", "slight", "--timeout", "0.2")
    assert ended.returncode == 4
    assert "No daemon shows these words (asked: this machine)" in ended.stderr
    ended = daemons.two.cli("pair", "--timeout", "0.1")
    assert ended.returncode == 6
    assert "No daemon typed the words within 0.1 seconds. Nothing was stored." in ended.stderr
    ended = daemons.two.cli("pair", "carla", "--timeout", "0.1")
    assert ended.returncode == 7
