"""Output of ``fastn-p2p status`` for prepared statuses."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from fastn_p2p.cli import main
from fastn_p2p.cli.status import collect
from fastn_p2p.cli.status.dashboard import render_text
from fastn_p2p.cli.status.narrow_dashboard import short
from fastn_p2p.console.process_snapshot import ProcessEntry, ProcessSnapshot, read_process_file
from fastn_p2p_client.errors import DaemonBusy, DaemonNotRunning, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    BindingStatus,
    ConnectionStatus,
    IdentityStatus,
    PeerInfo,
    ProcessStatus,
    Status,
    StatusReply,
    VaultInfo,
)

ID52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
ENDPOINT = "ab" * 32
LONG = "n" * 64

EMPTY = Status(
    version="0.1.0",
    home="/home/alice/.fastn",
    network_mode="internet",
    endpoint=ENDPOINT,
    addresses=["192.168.1.20:51820", "[2001:db8:85a3::8a2e:370:7334]:51820"],
    uptime_ms=123_456_789,
    clients=2,
    processes=[],
    identities=[],
    peers=[],
    connections=[],
    warnings=[],
)
FULL = replace(
    EMPTY,
    processes=[
        ProcessStatus(name=name, pid=4711, state="ready", uptime_ms=61_000, restarts=3, memory=18_000_000, cpu_ms=1234)
        for name in ("supervisor", "vault", "network", "gateway", "identity-alice")
    ],
    identities=[
        IdentityStatus(
            name="alice",
            id52=ID52,
            online=True,
            wanted=True,
            bindings=[
                BindingStatus(
                    protocol="Echo",
                    instance="default",
                    access=["everyone"],
                    state="serving",
                    calls=12345,
                    errors=7,
                    in_flight=2,
                    opened=14,
                    sessions=2,
                    p50_ms=0.45,
                    p99_ms=12.34,
                ),
                BindingStatus(
                    protocol="FileTransfer", instance="backup", access=["peers", ID52], state="failed: disk full"
                ),
            ],
            delegation_expires_ms=60_000,
        ),
        IdentityStatus(name="bob", id52=ID52, online=False, wanted=False, bindings=[]),
    ],
    peers=[PeerInfo(name="carol", id52=ID52, endpoints=1, added="2026-01-01T00:00:00Z")],
    connections=[
        ConnectionStatus(
            endpoint=ENDPOINT,
            identities=[ID52],
            path="relayed",
            address="192.168.1.30:51820",
            rtt_ms=12,
            outgoing=True,
            streams=2,
            in_flight=1,
            sent=1_234_567,
            received=98_765_432,
            age_ms=3_723_000,
        )
    ],
    warnings=["the vault is being restarted"],
)
CROWDED = replace(
    FULL,
    home="/home/" + "d" * 200,
    processes=[replace(FULL.processes[0], name=f"identity-{LONG}", state="backoff", pid=0, uptime_ms=0)],
    identities=[
        replace(
            FULL.identities[0],
            name=LONG,
            bindings=[
                replace(FULL.identities[0].bindings[0], protocol=LONG, instance=LONG, access=[LONG, ID52], calls=10**9)
            ],
        )
    ],
    peers=[replace(FULL.peers[0], name=LONG, endpoints=12)],
    connections=[replace(FULL.connections[0], identities=[LONG, ID52], address="https://" + "relay." * 20)],
    warnings=["w" * 300],
)


def without_breaks(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("status", [EMPTY, FULL, CROWDED], ids=["empty", "full", "crowded"])
def test_no_line_is_wider_than_the_terminal(status: Status, width: int) -> None:
    assert max(map(len, render_text(status, width=width).splitlines())) <= width


@pytest.mark.parametrize("status", [EMPTY, FULL, CROWDED], ids=["empty", "full", "crowded"])
def test_plain_text_has_no_control_characters(status: Status) -> None:
    assert not re.search(r"[^\n -~…←→]", render_text(status, width=80))


def test_colour_changes_no_words() -> None:
    coloured = render_text(FULL, width=80, colour=True)
    assert "\x1b[" in coloured
    bare = "\n".join(map(str.rstrip, re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()))
    assert bare == render_text(FULL, width=80)


def test_everything_about_processes_is_shown() -> None:
    (line,) = re.findall(r"^ +network .*$", render_text(FULL, width=80), re.MULTILINE)
    assert line.split() == ["network", "ready", "4711", "1", "m", "01", "s", "3", "17", "MiB", "1.2", "s"]


def test_everything_about_identities_is_shown() -> None:
    text = render_text(FULL, width=80)
    assert f"alice  online  {ID52}" in text
    assert f"bob  offline  {ID52}" in text
    assert re.search(r"Echo +default +everyone +12345 +7 +2 +0\.45/12\.3 +2/14$", text, re.MULTILINE)
    assert "FileTransfer (backup): failed: disk full" in text
    assert "delegation expires in 1 m 00 s" in text
    assert "fastn-p2p add-protocol bob --protocol Echo" in text


def test_an_identity_that_should_be_up_and_is_not() -> None:
    status = replace(FULL, identities=[replace(FULL.identities[1], wanted=True)])
    assert "bob  not up" in render_text(status, width=80)


def test_shows_peers_as_unknown_without_the_network_process() -> None:
    status = replace(EMPTY, endpoint="", identities=[replace(FULL.identities[1], wanted=True)])
    text = render_text(status, width=80)
    assert "bob  ?" in text
    assert "unknown while the network process does not answer" in text
    assert "none" not in text


def test_everything_about_peers_and_connections_is_shown() -> None:
    text = render_text(FULL, width=80)
    assert re.search(rf"carol +{ID52} +1 endpoint$", text, re.MULTILINE)
    assert re.search(r"→ carol +relayed +192\.168\.1\.30:51820, rtt 12 ms$", text, re.MULTILINE)
    assert re.search(r"up 1 h 02 m +2 streams, 1 in flight, 1\.2 MiB out, 94 MiB in$", text, re.MULTILINE)


def test_a_connection_before_the_first_introduction() -> None:
    status = replace(FULL, connections=[replace(FULL.connections[0], identities=[], rtt_ms=None, outgoing=False)])
    assert re.search(r"← ababab… +relayed +192\.168\.1\.30:51820$", render_text(status, width=80), re.MULTILINE)


def test_a_narrow_terminal_has_a_fact_on_each_line() -> None:
    """Long text is cut and marked; no line breaks in the middle of a word."""
    lines = render_text(FULL, width=40).splitlines()
    assert f"    {ID52[:35]}…" in lines
    for line in (
        "  alice  online",
        "  carol",
        "    Echo: 12345 calls, 7 errors",
        "  → carol  relayed",
        "    192.168.1.30:51820",
    ):
        assert line in lines
    assert "  vault: ready, up 1 m 01 s, 3 restarts" in lines
    many = replace(FULL, peers_total=200)
    assert render_text(many, width=40).splitlines()[-1].startswith("and 199 more: `fastn-p2p status")


@pytest.mark.parametrize("width", [40, 80])
def test_peers_that_cannot_be_reached_say_when_they_were_seen(width: int) -> None:
    (peer,) = FULL.peers
    away = replace(peer, reach="unreachable", seen_ms=1_769_860_800_000)
    never = replace(away, name="dave", seen_ms=0)
    here = replace(peer, name="erin", reach="connected", seen_ms=1)
    text = " ".join(render_text(replace(FULL, peers=[away, never, here]), width=width + 20).split())
    assert "unreachable, last seen 2026-01-31 12:00 UTC" in text
    assert "unreachable, not seen since the daemon started" in text
    assert "connected" in text


@pytest.mark.parametrize("width", [60, 120])
def test_revoked_identities_and_peers_are_shown(width: int) -> None:
    when = "2026-01-31T12:00:00Z"
    status = replace(
        FULL,
        identities=[replace(FULL.identities[1], revoked=when)],
        peers=[
            replace(FULL.peers[0], revoked=when, successor=ID52),
            replace(FULL.peers[0], name="dora", revoked=when),
        ],
    )
    shown = without_breaks(render_text(status, width=width))
    assert shown.count("revoked2026-01-31") == 3
    assert "revoked2026-01-31:`fastn-p2ppeeraccept-successorcarol`" in shown
    assert "revoked2026-01-31,nosuccessor" in shown


def test_nothing_of_the_bindings_is_lost_at_80_columns() -> None:
    text = render_text(FULL, width=80)
    assert re.search(r"FileTransfer +backup +peers +0 +0 +0 +- +-$", text, re.MULTILINE)


def test_warnings_come_first() -> None:
    text = render_text(FULL, width=80)
    assert "Warnings\n  the vault is being restarted\n" in text
    assert text.index("Warnings") < text.index("Processes")


def test_never_cuts_values_that_people_copy() -> None:
    text = without_breaks(render_text(CROWDED, width=200))
    assert ID52 in text
    assert "d" * 200 in text
    assert "w" * 300 in text


def test_empty_lists_name_the_next_command() -> None:
    text = render_text(EMPTY, width=80)
    assert "fastn-p2p create-identity NAME" in text
    assert "fastn-p2p peer add TICKET --name NAME" in text


def test_names_of_others_do_not_control_the_terminal() -> None:
    status = replace(FULL, connections=[replace(FULL.connections[0], address="\x1b]0;owned\x07")])
    assert "\\x1b]0;owned\\x07" in render_text(status, width=120)


def test_partial_shows_only_what_is_known() -> None:
    text = render_text(replace(EMPTY, warnings=["the gateway does not answer"]), partial=True, width=80)
    assert "Processes" in text
    assert "Identities" not in text
    assert "Connections" not in text


def test_short_leaves_names_alone() -> None:
    assert [short(each) for each in (ID52, ENDPOINT, "carol", "peers")] == ["i66fo5…", "ababab…", "carol", "peers"]


# ── the supervisor's account ─────────────────────────────────────────────────────────────────────

ACCOUNT = ProcessSnapshot(
    pid=os.getpid(),
    state="ready",
    version="0.1.0",
    network_mode="local",
    started_ms=1_000,
    processes=[
        ProcessEntry(
            name="vault", pid=4711, state="ready", started_ms=1_000, restarts=1, last_exit="killed by signal 9"
        ),
        ProcessEntry(name="gateway", state="backoff", started_ms=1_000, restarts=4, last_exit="exit code 1"),
    ],
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose daemon is this process, as far as the lock says."""
    found = Home(tmp_path)
    found.process_file.parent.mkdir()
    found.process_file.write_bytes(msgspec.json.encode(ACCOUNT))
    monkeypatch.setattr(Home, "daemon_pid", lambda _home: os.getpid())
    return found


def answers(monkeypatch: pytest.MonkeyPatch, answer: Status | P2PError) -> None:
    def ask(*_arguments: Any, **_options: Any) -> StatusReply:
        if isinstance(answer, P2PError):
            raise answer
        return StatusReply(answer)

    monkeypatch.setattr(collect, "request_daemon", ask)


def test_an_account_counts_while_its_daemon_holds_the_lock(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_process_file(home) == ACCOUNT
    monkeypatch.setattr(Home, "daemon_pid", lambda _home: 1)
    assert read_process_file(home) is None
    monkeypatch.setattr(Home, "daemon_pid", lambda _home: None)
    assert read_process_file(home) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_an_account_that_cannot_be_read_is_none(home: Home, content: bytes) -> None:
    home.process_file.write_bytes(content)
    assert read_process_file(home) is None


def test_an_account_as_a_status(home: Home) -> None:
    status = ACCOUNT.as_status(home, 61_000, ["first"])
    assert status.uptime_ms == 60_000
    assert [(each.name, each.pid, each.uptime_ms) for each in status.processes] == [
        ("supervisor", os.getpid(), 60_000),
        ("vault", 4711, 60_000),
        ("gateway", 0, 0),
    ]
    assert status.warnings == ["first", "gateway is backoff. It last ended with: exit code 1"]


def test_status_of_a_daemon_that_answers(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, FULL)
    assert main(["status", "--home", str(home.path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert "identity-alice" in out


def test_status_as_json_is_all_of_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, FULL)
    assert main(["status", "--json", "--home", str(home.path)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert msgspec.json.decode(out, type=Status) == FULL
    assert json.loads(out)["identities"][0]["bindings"][0]["p99_ms"] == 12.34


def test_status_while_the_supervisor_does_not_answer(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, replace(FULL, processes=[]))
    assert main(["status", "--home", str(home.path)]) == 0
    assert re.search(r"^ +gateway +backoff +- ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_status_while_the_gateway_is_down(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    answers(monkeypatch, DaemonBusy(actor="gateway"))
    assert main(["status", "--home", str(home.path), *options]) == 3
    out, err = capsys.readouterr()
    assert err == ""
    assert "the gateway does not answer" in out
    assert "backoff" in out
    assert str(os.getpid()) in out


def test_status_without_a_daemon(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Home, "daemon_pid", lambda _home: None)
    answers(monkeypatch, DaemonNotRunning(home=str(home.path)))
    assert main(["status", "--home", str(home.path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "fastn-p2p daemon" in err


class Sequence:
    """Answers ``observe`` with one thing after the other, then interrupts."""

    def __init__(self, *answers: collect.StatusSnapshot | P2PError) -> None:
        self._answers = list(answers)

    def __call__(self, _home: Path | None) -> collect.StatusSnapshot:
        if not self._answers:
            raise KeyboardInterrupt
        answer = self._answers.pop(0)
        if isinstance(answer, P2PError):
            raise answer
        return answer


SEEN = collect.StatusSnapshot(FULL, False)
GONE = DaemonNotRunning(home="/a")
DEGRADED = collect.StatusSnapshot(replace(EMPTY, warnings=["the gateway does not answer"]), True)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "PERIOD", 0)


@pytest.mark.usefixtures("_at_once")
def test_watching_into_a_pipe_goes_on_when_the_daemon_goes_and_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(collect, "collect_status", Sequence(SEEN, DEGRADED, GONE, SEEN))
    assert main(["status", "--watch", "--json"]) == 130
    out, err = capsys.readouterr()
    assert [len(json.loads(line)["identities"]) for line in out.splitlines()] == [2, 0, 2]
    assert err == f"fastn-p2p: {GONE}\n"


@pytest.mark.usefixtures("_at_once")
def test_watching_on_a_terminal_goes_on_when_the_daemon_goes_and_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(collect, "collect_status", Sequence(SEEN, GONE, DEGRADED, SEEN))
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _stream: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["status", "--watch"]) == 130
    out = capsys.readouterr().out
    assert out.index("identity-alice") < out.index("Last known") < out.index("the gateway does not answer")
    assert out.rindex("identity-alice") > out.rindex("the gateway does not answer")


def test_watching_needs_a_daemon_to_begin_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(collect, "collect_status", Sequence(GONE))
    assert main(["status", "--watch"]) == 3
    assert capsys.readouterr() == ("", f"fastn-p2p: {GONE}\n")


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"relays": [], "directories": []}, ["relay none", "directories none"]),
        (
            {"relays": ["https://a/", "https://b/"], "directories": ["https://d", "https://e"]},
            ["relay not connected to https://a/ or https://b/", "directories https://d https://e"],
        ),
        (
            {"relays": ["https://a/", "https://b/"], "home_relay": "https://b/"},
            ["relay https://b/ (connected), 1 more known", "directories none"],
        ),
        ({"relays": ["https://a/"], "home_relay": "https://a/"}, ["relay https://a/ (connected)"]),
    ],
)
def test_shows_relays_and_directories(width: int, changes: dict[str, Any], lines: list[str]) -> None:
    shown = [" ".join(line.split()) for line in render_text(replace(EMPTY, **changes), width=width).splitlines()]
    for line in lines:
        assert line in shown


@pytest.mark.parametrize("width", [60, 120])
def test_shows_no_relays_in_modes_that_use_none(width: int) -> None:
    assert "relay" not in render_text(replace(EMPTY, network_mode="lan"), width=width)


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(
    ("vault", "line"),
    [
        (None, ""),
        (VaultInfo(encrypted=False, locked=False), "keys not encrypted: fastn"),
        (VaultInfo(encrypted=True, locked=True), "locked: fastn-p2p vault unlock"),
        (VaultInfo(encrypted=True, locked=False), "unlocked"),
        (VaultInfo(encrypted=True, locked=False, locks_at=1_800_000_000), "unlocked until 2027-01-"),
    ],
)
def test_state_of_the_vault_is_one_line_with_the_next_command(vault: VaultInfo | None, line: str, width: int) -> None:
    text = render_text(replace(EMPTY, vault=vault), width=width)
    rows = [row for row in text.splitlines() if row.startswith("  vault ")]
    assert [line in row for row in rows] == ([] if vault is None else [True])


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize(
    ("states", "line"),
    [
        (("", ""), None),
        (("", "closed"), "closed"),
        (("off", "off"), "off: limits.sandbox is false"),
        (("closed", "open: TCP ports"), "open in part: see the warnings"),
    ],
)
def test_state_of_the_sandboxes_is_one_line(states: tuple[str, ...], line: str | None, width: int) -> None:
    process = ProcessStatus(name="x", pid=1, state="ready", uptime_ms=1, restarts=0, memory=1, cpu_ms=1)
    status = replace(EMPTY, processes=[replace(process, sandbox=state) for state in states])
    rows = [row for row in render_text(status, width=width).splitlines() if row.startswith("  sandboxes ")]
    assert [" ".join(row.split()) for row in rows] == ([] if line is None else [f"sandboxes {line}"])
