"""Requests and output of each command. A stub of the daemon returns prepared replies."""

import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

import fastn_p2p_client.ipc.messages as m
import fastn_p2p_supervisor.daemon as supervisor
from fastn_p2p.cli import main
from fastn_p2p.cli.commands import call
from fastn_p2p.console import access_uses, confirmation, control_request
from fastn_p2p_actors.daemon_settings.sections import NetworkSection
from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import (
    ApplicationError,
    DaemonNotRunning,
    IdentityExists,
    InternalError,
    P2PError,
    PeerOffline,
)
from fastn_p2p_client.home import Home
from fastn_p2p_supervisor.actor_specs import DaemonConfig

ID52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
ALICE = m.IdentityInfo(name="alice", id52=ID52, online=True, created="2026-01-01T00:00:00Z")
BOB = m.PeerInfo(name="bob", id52=ID52, endpoints=1, added="2026-01-01T00:00:00Z")

REVOKED = msgspec.structs.replace(ALICE, online=False, revoked="2026-01-31T12:00:00Z", successor=ID52)


class Daemon:
    """Records what it is asked and answers with ``reply``."""

    def __init__(self) -> None:
        self.reply: Any = m.Ack()
        self.asked: list[tuple[Path | None, m.ControlRequest, bytes]] = []
        self.called: list[tuple[Any, ...]] = []

    def ask(self, home: Path | None, message: m.ControlRequest, payload: bytes) -> Any:
        self.asked.append((home, message, payload))
        return self._answer()

    def call(self, *arguments: Any) -> Any:
        self.called.append(arguments)
        return self._answer()

    def _answer(self) -> Any:
        if isinstance(self.reply, BaseException):
            raise self.reply
        return self.reply


class StubClient(Client):
    """Client of such a daemon."""

    def __init__(self, daemon: Daemon, home: Path | None, **_: Any) -> None:
        self._stub = daemon
        self._home = home

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def control(self, message: Any, payload: bytes = b"", *, timeout: float = 60.0) -> Any:
        return self._stub.ask(self._home, message, payload)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    fake = Daemon()
    monkeypatch.setattr(control_request, "Client", partial(StubClient, fake))
    for module in (access_uses, confirmation):  # they only tell of what else there is
        monkeypatch.setattr(module, "with_daemon", _no_answer)
    monkeypatch.setattr(call, "_call", fake.call)
    return fake


def _no_answer(home: Path | None, _action: object) -> Any:
    raise DaemonNotRunning(home=str(home))


@pytest.mark.parametrize(
    ("arguments", "reply", "message", "printed"),
    [
        ("create-identity alice", m.IdentityReply(ALICE), m.CreateIdentity("alice"), f"{ID52}\n"),
        ("delete-identity alice --yes", m.Ack(), m.DeleteIdentity("alice"), ""),
        (
            f"identity revoke alice --successor {ID52} --yes",
            m.IdentityReply(REVOKED),
            m.RevokeIdentity("alice", ID52),
            "",
        ),
        ("identity list", m.IdentityList([REVOKED]), m.ListIdentities(), f"alice\t{ID52}\trevoked 2026-01-31\n"),
        ("peer accept-successor bob", m.PeerReply(BOB), m.AcceptSuccessor("bob"), ""),
        ("list-identities", m.IdentityList([ALICE]), m.ListIdentities(), f"alice\t{ID52}\tonline\n"),
        ("list-identities", m.IdentityList([]), m.ListIdentities(), ""),
        ("identity-online alice", m.IdentityReply(ALICE), m.SetIdentityOnline("alice", True), ""),
        ("identity-offline alice", m.IdentityReply(ALICE), m.SetIdentityOnline("alice", False), ""),
        (
            "remove-protocol alice --protocol Echo",
            m.Ack(),
            m.RemoveProtocol("alice", "Echo", "default", if_empty=True),
            "",
        ),
        (
            "remove-protocol alice --protocol Echo --alias backup --yes",
            m.Ack(),
            m.RemoveProtocol("alice", "Echo", "backup"),
            "",
        ),
        (
            "remove-protocol alice --protocol Echo --keep-data",
            m.Ack(),
            m.RemoveProtocol("alice", "Echo", "default", keep_data=True, if_empty=True),
            "",
        ),
        (
            "set-protocol alice --protocol Echo --allow peers --allow bob",
            m.StateReply("serving"),
            m.SetProtocol("alice", "Echo", "default", ("peers", "bob")),
            "",
        ),
        (
            "set-protocol alice --protocol Echo --alias backup --reset-allow",
            m.StateReply("serving"),
            m.SetProtocol("alice", "Echo", "backup", ()),
            "",
        ),
        ("ticket", m.TicketText("fastn1abc"), m.GetTicket(""), "fastn1abc\n"),
        ("ticket alice", m.TicketText("fastn1abc"), m.GetTicket("alice"), "fastn1abc\n"),
        ("peer add fastn1abc --name bob", m.PeerReply(BOB), m.AddPeer("fastn1abc", "bob"), f"{ID52}\n"),
        ("peer add fastn1abc --name bob", m.PeerReply(BOB, "rob"), m.AddPeer("fastn1abc", "bob"), f"{ID52}\n"),
        ("peer list", m.PeerList([BOB]), m.ListPeers(), f"bob\t{ID52}\t1\t2026-01-01T00:00:00Z\n"),
    ],
)
def test_command(
    capsys: pytest.CaptureFixture[str],
    daemon: Daemon,
    arguments: str,
    reply: m.ControlReply,
    message: m.ControlRequest,
    printed: str,
) -> None:
    daemon.reply = reply
    assert main(arguments.split()) == 0
    assert daemon.asked == [(None, message, b"")]
    out, err = capsys.readouterr()
    assert out == printed
    assert out or err, "nothing was said at all"


@pytest.mark.parametrize(
    ("successor", "words"),
    [(ID52, f"Its successor is {ID52}: fastn-p2p peer accept-successor bob"), ("", "without a successor")],
)
def test_peer_list_says_who_was_revoked(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, successor: str, words: str
) -> None:
    revoked = msgspec.structs.replace(BOB, revoked="2026-01-31T12:00:00Z", successor=successor)
    daemon.reply = m.PeerList([revoked])
    assert main(["peer", "list"]) == 0
    out, err = capsys.readouterr()
    assert out == f"bob\t{ID52}\t1\t2026-01-01T00:00:00Z\n"
    assert "bob was revoked on 2026-01-31" in err
    assert words in err


def test_add_protocol_sends_the_config_as_it_was_typed(daemon: Daemon) -> None:
    config = '{"max_length": 1000}'
    assert main(["add-protocol", "alice", "--protocol", "Echo", "--config", config]) == 0
    assert daemon.asked == [(None, m.AddProtocol("alice", "Echo", "default", ()), config.encode())]


def test_add_protocol_for_workers_sends_the_server_and_warns_if_it_does_not_answer(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["add-protocol", "alice", "--protocol", "Work", "--workers", "nats://127.0.0.1:1"]) == 0
    asked = m.AddProtocol("alice", "Work", "default", workers=True)
    assert daemon.asked == [(None, asked, b'{"url":"nats://127.0.0.1:1"}')]
    assert "it does not answer. Start it, or check the URL. Callers see an error" in capsys.readouterr().err


def test_set_protocol_sends_the_config_as_it_was_typed(daemon: Daemon) -> None:
    daemon.reply = m.StateReply("serving")
    assert main(["set-protocol", "alice", "--protocol", "Echo", "--config", '{"max_length": 1}']) == 0
    assert daemon.asked == [(None, m.SetProtocol("alice", "Echo", "default"), b'{"max_length": 1}')]


def test_add_protocol_with_config_from_a_file_and_an_access_list(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"max_length": 5}\n')
    rest = ["--alias", "backup", "--allow", "peers", "--allow", "bob", "--config", f"@{file}"]
    assert main(["add-protocol", "alice", "--protocol", "Echo", *rest]) == 0
    assert daemon.asked == [(None, m.AddProtocol("alice", "Echo", "backup", ("peers", "bob")), b'{"max_length": 5}\n')]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--home", "/a", "ticket"], "/a"),
        (["ticket", "--home", "/a"], "/a"),
        (["--home", "/a", "ticket", "--home", "/b"], "/b"),
    ],
)
def test_home_stands_before_or_after_the_command(daemon: Daemon, arguments: list[str], expected: str) -> None:
    daemon.reply = m.TicketText("fastn1abc")
    assert main(arguments) == 0
    assert daemon.asked[0][0] == Path(expected)


def test_home_stands_before_in_between_or_after_a_command_of_a_group(daemon: Daemon) -> None:
    daemon.reply = m.PeerList([])
    for arguments in (
        ["--home", "/a", "peer", "list"],
        ["peer", "--home", "/a", "list"],
        ["peer", "list", "--home", "/a"],
    ):
        assert main(arguments) == 0
    assert {home for home, *_ in daemon.asked} == {Path("/a")}


@pytest.mark.parametrize("command", ["list-identities", "peer list"])
def test_lists_as_json(capsys: pytest.CaptureFixture[str], daemon: Daemon, command: str) -> None:
    daemon.reply = m.IdentityList([ALICE]) if command == "list-identities" else m.PeerList([BOB])
    assert main([*command.split(), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)[0]["id52"] == ID52


# ── call ─────────────────────────────────────────────────────────────────────────────────────────


def stdin(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def test_call_prints_the_reply_as_one_line_of_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, daemon: Daemon
) -> None:
    stdin(monkeypatch, '{"message": "Hello P2P!"}\n')
    daemon.reply = {"echoed": "Grüße\nP2P", "raw": b"\x00\xff", "at": [1, 2.5, None]}
    assert main(["call", "bob", "Echo"]) == 0
    assert daemon.called == [(None, None, "bob", "Echo", "default", "", {"message": "Hello P2P!"}, 10.0, False, "")]
    out, err = capsys.readouterr()
    assert err == ""
    assert out == '{"echoed":"Grüße\\nP2P","raw":"AP8=","at":[1,2.5,null]}\n'


def test_call_with_everything(monkeypatch: pytest.MonkeyPatch, daemon: Daemon) -> None:
    stdin(monkeypatch, "[1, 2]")
    daemon.reply = None
    assert (
        main(["call", ID52, "Echo", "backup", "--as", "bob", "--timeout", "2.5", "--home", "/a", "--request-id", "7f"])
        == 0
    )
    assert daemon.called == [(Path("/a"), "bob", ID52, "Echo", "backup", "", [1, 2], 2.5, False, "7f")]


def test_call_takes_data_from_the_command_line_and_leaves_standard_input_alone(
    monkeypatch: pytest.MonkeyPatch, daemon: Daemon
) -> None:
    stdin(monkeypatch, "not this")
    assert main(["call", "bob", "Echo", "--data", '"hello"']) == 0
    assert daemon.called[0][6] == "hello"


def test_prints_application_errors_on_standard_error(capsys: pytest.CaptureFixture[str], daemon: Daemon) -> None:
    daemon.reply = ApplicationError("MessageTooLong", "at most 5 characters", {"limit": 5})
    assert main(["call", "bob", "Echo", "--data", "{}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("fastn-p2p: application error: MessageTooLong: at most 5 characters\n" + '{"limit":5}\n')


def test_an_error_as_json_has_the_request_id(capsys: pytest.CaptureFixture[str], daemon: Daemon) -> None:
    for error in (ApplicationError("MessageTooLong", ""), PeerOffline(peer="bob")):
        error.request_id = "7f3a"
        daemon.reply = error
        main(["call", "bob", "Echo", "--data", "{}", "--json"])
        assert json.loads(capsys.readouterr().out)["error"]["request_id"] == "7f3a"


def test_escapes_control_characters_of_peers(capsys: pytest.CaptureFixture[str], daemon: Daemon) -> None:
    daemon.reply = ApplicationError("Bad", "\x1b]0;owned\x07\x9b31m")
    assert main(["call", "bob", "Echo", "--data", "{}"]) == 1
    assert capsys.readouterr().err.endswith("Bad: \\x1b]0;owned\\x07\\x9b31m\n")


# ── how a command ends ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "code"),
    [(IdentityExists(identity="alice"), 8), (InternalError(reason="x"), 70)],
)
def test_an_error_is_one_line_on_standard_error(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, error: P2PError, code: int
) -> None:
    daemon.reply = error
    assert main(["create-identity", "alice"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"fastn-p2p: {error}\n"


def test_a_defect_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTN_TRACEBACK", raising=False)
    daemon.reply = ZeroDivisionError("x")
    assert main(["create-identity", "alice"]) == 70
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("FASTN_TRACEBACK", "1")
    assert main(["create-identity", "alice"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_control_c_ends_quietly(capsys: pytest.CaptureFixture[str], daemon: Daemon) -> None:
    daemon.reply = KeyboardInterrupt()
    assert main(["create-identity", "alice"]) == 130
    assert capsys.readouterr() == ("", "")


# ── daemon ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "environment", "mode", "memory", "connections"),
    [
        ([], {}, "internet", 2048, 128),
        (["--network", "local", "--connections", "7"], {"FASTN_CONNECTIONS": "8"}, "local", 2048, 7),
        ([], {"FASTN_NETWORK": "local", "FASTN_MEMORY": "300", "FASTN_CONNECTIONS": "8"}, "local", 300, 8),
        (
            ["--network", "internet", "--memory", "0"],
            {"FASTN_NETWORK": "local", "FASTN_MEMORY": "3"},
            "internet",
            0,
            128,
        ),
    ],
)
@pytest.mark.parametrize(("ended", "code"), [(0, 0), (supervisor.EXIT_FAILED, 3), (supervisor.EXIT_INTERRUPTED, 130)])
def test_daemon(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    environment: dict[str, str],
    mode: str,
    memory: int,
    connections: int,
    ended: int,
    code: int,
) -> None:
    started: list[tuple[Home, str, int, int]] = []

    def run(home: Home, network: NetworkSection, plan: DaemonConfig) -> int:
        started.append((home, network.mode, plan.identity_memory // 1024 // 1024, plan.program_connections))
        return ended

    monkeypatch.setattr(supervisor, "run", run)
    for name in ("FASTN_LOG", "FASTN_LOG_FORMAT"):  # the command sets them for its processes
        monkeypatch.setenv(name, "")
    for name in ("FASTN_NETWORK", "FASTN_MEMORY", "FASTN_CONNECTIONS", "FASTN_LOG", "FASTN_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["daemon", "--home", str(tmp_path), *arguments]) == code
    assert started == [(Home(tmp_path), mode, memory, connections)]
