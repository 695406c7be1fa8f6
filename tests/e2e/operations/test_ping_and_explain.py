"""``ping`` and ``explain``: the way to a peer, measured and followed step by step, also where it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.ipc.messages import DeleteIdentity, SetIdentityOnline
from tests.support.daemons import DEADLINE, Daemon
from tests.support.two_daemons import TwoDaemons, add_binding, binding_of, start_two_daemons


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    """alice and bob find each other on this machine. bob's Echo ``private`` is for peers in his address book."""
    with start_two_daemons(echo=False) as made:
        add_binding(made.two, "bob", "Echo", "private", "peers")
        yield made


@pytest.fixture(scope="module")
def apart() -> Iterator[TwoDaemons]:
    """alice and bob share no source."""
    with start_two_daemons(share_host=False, echo=False) as made:
        yield made


def explained(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    """Return the trace as JSON."""
    done = daemon.cli("explain", *arguments, "--json")
    assert done.stdout, done.stderr
    trace: dict[str, Any] = json.loads(done.stdout)
    return trace


# ── ping ─────────────────────────────────────────────────────────────────────────────────────────


def test_ping_ends_at_the_first_direct_answer(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("ping", daemons.bob, "--timeout", "50")
    assert done.returncode == ExitCode.OK, done.stderr
    assert re.fullmatch(rf"{daemons.bob}: direct (127\.0\.0\.1|\[::1\]):\d+, [0-9.]+ ms\n", done.stdout)
    assert "1 sent, 1 answered" in done.stderr


def test_ping_counts(daemons: TwoDaemons) -> None:
    done = daemons.one.cli(
        "ping", daemons.bob, "--count", "3", "--interval", "0", "--timeout", "50", "--json", timeout=DEADLINE * 3
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines[:-1]] == ["direct"] * 3
    assert all(line["rtt_ms"] > 0 for line in lines[:-1])
    summary = lines[-1]["summary"]
    assert (summary["sent"], summary["answered"]) == (3, 3)
    assert summary["min_ms"] <= summary["mean_ms"] <= summary["max_ms"]


def test_ping_needs_no_identity_but_the_one_that_is_named(daemons: TwoDaemons) -> None:
    assert daemons.one.cli("ping", daemons.bob, "--identity", "alice").returncode == ExitCode.OK
    done = daemons.one.cli("ping", daemons.bob, "--identity", "carol")
    assert (done.returncode, "carol" in done.stderr) == (ExitCode.OFFLINE, True)


def test_ping_of_an_own_identity_uses_no_network(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("ping", "alice")
    assert (done.returncode, "alice: this daemon" in done.stdout) == (ExitCode.OK, True)


def test_ping_of_a_peer_that_does_not_answer(daemons: TwoDaemons, tmp_path: Path) -> None:
    gone = Daemon(tmp_path / "gone", daemons.one.home.path.parent / "hosts").start()
    id52 = gone.identity("carol", echo=False)
    ticket = gone.cli("ticket", "carol").stdout.strip()
    gone.kill()
    gone.clean_up()
    done = daemons.one.cli("ping", ticket, "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (ExitCode.PEER, "")
    assert "fastn-p2p explain" in done.stderr
    counted = daemons.one.cli("ping", id52, "--timeout", "0.3", "--count", "2", "--interval", "0", "--json")
    assert json.loads(counted.stdout.splitlines()[-1])["summary"]["answered"] == 0
    assert counted.returncode == ExitCode.PEER


def test_ping_of_an_unknown_name(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("ping", "nobody")
    assert (done.returncode, done.stdout) == (ExitCode.PEER, "")
    assert "nothing is known about nobody" in done.stderr
    error, summary = map(json.loads, daemons.one.cli("ping", "nobody", "--json").stdout.splitlines())
    assert (error["error"]["code"], summary["summary"]["answered"]) == ("peer-unknown", 0)


# ── explain ──────────────────────────────────────────────────────────────────────────────────────


def test_explain_follows_each_step(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("explain", daemons.bob, "Echo")
    assert done.returncode == ExitCode.OK, done.stderr
    steps = {line[:11].strip(): line[11:] for line in done.stdout.splitlines() if line[:11].strip()}
    assert steps["name"] == f"{daemons.bob} (ID52)"
    assert steps["key"] == daemons.bob
    assert re.search(r"this machine: record with 1 endpoint, signed .+ ago, verified", done.stdout)
    assert steps["path"].startswith("direct ")
    assert "has proved" in steps["proof"]
    assert steps["access"] == "Echo (default) as alice: allowed"
    assert steps["served by"]
    assert steps["result"] == "it can be called"


def test_explain_shows_what_was_dialled(apart: TwoDaemons) -> None:
    ticket = apart.two.cli("ticket", "bob").stdout.strip()
    trace = explained(apart.one, ticket)
    assert (trace["kind"], trace["id52"], trace["was_connected"]) == ("ticket", apart.bob, False)
    assert [each["result"] for each in trace["attempts"]] == ["connected"]
    assert trace["attempts"][0]["addresses"]
    assert trace["sources"][0]["name"] == "ticket"
    assert trace["sources"][0]["records"][0]["problem"] == ""
    assert explained(apart.one, ticket)["was_connected"] is True


def test_explain_of_access_runs_no_handler(daemons: TwoDaemons) -> None:
    before = binding_of(daemons.two, "bob", "Echo", "private")
    denied = daemons.one.cli("explain", daemons.bob, "Echo", "private")
    assert denied.returncode == ExitCode.DENIED
    assert "denied" in denied.stdout
    assert "--allow" in denied.stdout
    assert binding_of(daemons.two, "bob", "Echo", "private") == before
    absent = daemons.one.cli("explain", daemons.bob, "Nope")
    assert (absent.returncode, "not offered" in absent.stdout) == (ExitCode.NOT_FOUND, True)
    assert daemons.one.cli("explain", daemons.bob, "Echo", "nope").returncode == ExitCode.NOT_FOUND


def test_explain_says_why_access_is_not_known(daemons: TwoDaemons) -> None:
    done = daemons.one.cli("explain", daemons.bob)
    assert done.returncode == ExitCode.OK
    assert "access     unknown, because no protocol was named" in done.stdout


def test_explain_of_a_peer_that_is_offline(daemons: TwoDaemons) -> None:
    carol = daemons.two.identity("carol", echo=False)
    assert daemons.one.cli("call", carol, "Echo", "--data", "{}").returncode == ExitCode.NOT_FOUND
    with daemons.two.client() as control:
        control.control(SetIdentityOnline("carol", False))
        done = daemons.one.cli("explain", carol, "Echo")
        control.control(DeleteIdentity("carol"))
    assert done.returncode == ExitCode.PEER
    assert "try        ask its owner to bring it online: fastn-p2p identity-online NAME" in done.stdout
    assert done.stdout.count("the identity is not online there") == 1


def test_explain_of_own_identities(daemons: TwoDaemons) -> None:
    trace = explained(daemons.one, "alice", "Echo")
    assert (trace["kind"], trace["path"], trace["access"]) == ("own identity", "local", "allowed")
    assert "alice" in trace["served_by"]
    assert explained(daemons.one, "alice", "Nope")["access"] == "not offered"


def test_explain_of_an_unknown_name_suggests_one(daemons: TwoDaemons) -> None:
    assert daemons.one.cli("peer", "add", daemons.bob, "--name", "robert").returncode == 0
    done = daemons.one.cli("explain", "robret")
    assert done.returncode == ExitCode.PEER
    assert "did you mean robert?" in done.stdout
    assert "fastn-p2p peer add TICKET --name zzz" in daemons.one.cli("explain", "zzz").stdout
    assert daemons.one.cli("peer", "remove", "robert").returncode == 0


def test_explain_of_a_peer_that_no_source_knows(apart: TwoDaemons) -> None:
    unknown = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
    done = apart.one.cli("explain", unknown)
    assert done.returncode == ExitCode.PEER
    assert "this machine: does not know it" in done.stdout
    assert "nothing: no address is known" in done.stdout
    assert "fastn-p2p explain" not in done.stdout, "it is what has just run"
    assert "--network" in done.stdout.splitlines()[-1]


def test_explain_of_a_blocked_peer(daemons: TwoDaemons) -> None:
    assert daemons.one.cli("peer", "block", daemons.bob).returncode == 0
    try:
        done = daemons.one.cli("explain", daemons.bob, "Echo")
    finally:
        daemons.one.cli("peer", "unblock", daemons.bob)
    assert done.returncode == ExitCode.DENIED
    assert done.stdout.endswith(f"try        unblock it: fastn-p2p peer unblock {daemons.bob}\n")


def test_explain_of_a_peer_that_has_blocked_the_caller(daemons: TwoDaemons) -> None:
    assert daemons.one.cli("ping", daemons.bob).returncode == 0
    assert daemons.two.cli("peer", "block", daemons.alice).returncode == 0
    try:
        first, second = (daemons.one.cli("explain", daemons.bob, "Echo") for _ in range(2))
    finally:
        daemons.two.cli("peer", "unblock", daemons.alice)
    assert first.returncode == second.returncode == ExitCode.PEER
    assert "A call may have been executed" not in first.stdout + second.stdout
    assert "the peer daemon closed it" in second.stdout, second.stdout
    assert second.stdout.endswith("fastn-p2p peer blocked\n")


def test_explain_of_a_peer_that_is_gone(daemons: TwoDaemons, tmp_path: Path) -> None:
    gone = Daemon(tmp_path / "gone", daemons.one.home.path.parent / "hosts").start()
    id52 = gone.identity("carol", echo=False)
    gone.kill()
    gone.clean_up()
    done = daemons.one.cli("explain", id52, "--timeout", "3")
    assert done.returncode == ExitCode.PEER
    assert "record with 1 endpoint" in done.stdout
    assert re.search(r"dialled +endpoint [0-9a-f]{10} at 127\.0\.0\.1:\d+", done.stdout)
    assert "try        ask the peer's owner" in done.stdout


def test_explain_without_a_calling_identity(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        client.control(SetIdentityOnline("alice", False))
        try:
            done = daemons.one.cli("explain", daemons.bob, "Echo")
            assert done.returncode == ExitCode.OFFLINE
            assert "no identity is online here" in done.stdout
        finally:
            client.control(SetIdentityOnline("alice", True))
