"""``--json`` and ``--quiet``, which every command takes."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli import main
from fastn_p2p.cli.command_groups import PROGRAM_GROUP, CommandGroup
from fastn_p2p.cli.error_report import report
from fastn_p2p.cli.json_schema import RESULTS, result_types
from fastn_p2p.console import control_request
from fastn_p2p.console.exit_codes import CommandFailed, CommandLineError, ExitCode
from fastn_p2p_client.errors import ApplicationError, IdentityNotFound, VaultLocked
from fastn_p2p_client.ipc.messages import IdentityInfo


def commands(group: CommandGroup, *path: str) -> Iterator[tuple[str, Any]]:
    for name, module in group.modules.items():
        loaded = importlib.import_module(module)
        if hasattr(loaded, "GROUP"):
            yield from commands(loaded.GROUP, *path, name)
        else:
            yield " ".join((*path, name)), loaded.run


ALL = dict(commands(PROGRAM_GROUP))


@pytest.mark.parametrize("command", ALL)
def test_every_command_takes_json(command: str) -> None:
    assert "json" in ALL[command].__annotations__


@pytest.mark.parametrize("command", ALL)
def test_each_command_declares_the_types_of_its_lines(command: str) -> None:
    """Commands without a result take ``ErrorsOption``."""
    run = ALL[command]
    has_result = run.__annotations__["json"] != "ErrorsOption"
    assert (len(result_types(run.__module__)) > 1) is (has_result or command == "call")


def test_no_type_is_declared_for_a_command_that_does_not_exist() -> None:
    modules = {run.__module__.removeprefix("fastn_p2p.cli.commands.") for run in ALL.values()}
    assert modules >= RESULTS.keys()


def test_schema_shows_one_command_or_a_group_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> Any:
        assert main(["schema", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    one = shown("peer", "list")
    assert one["anyOf"] == [
        {"type": "array", "items": {"$ref": "#/$defs/PeerInfo"}},
        {"$ref": "#/$defs/ErrorLine"},
    ]
    assert {"name", "id52"} <= one["$defs"]["PeerInfo"]["properties"].keys()
    assert shown("peer")["peer list"] == one
    assert shown().keys() == ALL.keys()


def test_schema_is_shown_on_several_lines_without_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "mail", "list"]) == 0
    assert '\n  "title": "A line of: fastn-p2p mail list --json",\n' in capsys.readouterr().out


def test_schema_refuses_what_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "peer", "bogus"]) == ExitCode.USAGE
    assert "no command 'peer bogus'" in capsys.readouterr().err


def test_other_commands_do_not_import_the_records() -> None:
    code = "import sys; from fastn_p2p.cli import main; main(['config', 'path', '--json']); "
    code += "sys.exit('fastn_p2p.cli.json_records' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def reported(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Any]:
    """Return the only error on standard output, and check that standard error is empty."""
    written = capsys.readouterr()
    assert written.err == ""
    (line,) = written.out.splitlines()
    error: dict[str, Any] = json.loads(line)["error"]
    assert error.keys() == {"code", "message", "exit", "fields"}
    assert error["exit"] == code
    return error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("call --json", "Missing argument"),
        ("status --json --bogus", "--bogus"),
        ("call bob Echo --timeout soon --json --data {}", "soon"),
        ("call bob Echo --timeout 0 --json --data {}", "--timeout must be more than 0"),
        ("bogus --json", "bogus"),
    ],
)
def test_a_usage_error_is_json(capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    assert main(arguments.split()) == ExitCode.USAGE
    error = reported(capsys, 2)
    assert error["code"] == "usage-error"
    assert words in error["message"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (IdentityNotFound(identity="zed"), ("identity-not-found", 7, {"identity": "zed"})),
        (VaultLocked(what="a backup"), ("vault-locked", 15, {"what": "a backup"})),
        (
            ApplicationError("TooLong", "at most 3", {"max": 3, "raw": b"\0"}),
            ("application-error", 1, {"kind": "TooLong", "message": "at most 3", "payload": {"max": 3, "raw": "AA=="}}),
        ),
        (CommandLineError("wrong"), ("usage-error", 2, {})),
        (CommandFailed("there", ExitCode.EXISTS, "file-exists", path="/a"), ("file-exists", 8, {"path": "/a"})),
        (PermissionError(13, "Permission denied", "/a"), ("storage-failed", 74, {})),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), ("usage-error", 2, {})),
        (ZeroDivisionError(), ("internal-error", 70, {})),
    ],
)
def test_each_kind_of_error_is_json(
    capsys: pytest.CaptureFixture[str], error: Exception, expected: tuple[str, int, dict[str, Any]]
) -> None:
    code = report(error, json=True)
    found = reported(capsys, code)
    assert (found["code"], found["exit"], found["fields"]) == expected
    assert found["message"]


def test_without_json_an_error_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(IdentityNotFound(identity="zed")) == ExitCode.NOT_FOUND
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("fastn-p2p: ")


def test_an_error_goes_to_standard_error_where_json_cannot_be_written(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastn_p2p", "--home", str(tmp_path), "status", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == ExitCode.DAEMON
    assert "no daemon is running" in done.stderr


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> IdentityInfo:
    """Let ``create-identity`` create this identity."""
    identity = IdentityInfo("alice", "a" * 52, online=False, created="2026-11-30T00:00:00Z")
    monkeypatch.setattr(control_request, "with_daemon", lambda _home, _action: identity)
    return identity


@pytest.mark.parametrize("arguments", ["create-identity alice --json", "create-identity --json alice"])
def test_with_json_the_result_is_json(
    capsys: pytest.CaptureFixture[str], created: IdentityInfo, arguments: str
) -> None:
    assert main(arguments.split()) == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["id52"] == created.id52
    assert written.err == ""


@pytest.mark.parametrize(
    "arguments", ["--quiet create-identity alice", "create-identity --quiet alice", "create-identity alice --quiet"]
)
def test_quiet_leaves_the_result(capsys: pytest.CaptureFixture[str], created: IdentityInfo, arguments: str) -> None:
    assert main(arguments.split()) == 0
    assert capsys.readouterr() == (f"{created.id52}\n", "")
    assert main(["create-identity", "alice"]) == 0
    assert "Created alice" in capsys.readouterr().err  # only the command that was told is quiet


def test_quiet_leaves_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--home", str(tmp_path), "status", "--quiet"]) == ExitCode.DAEMON
    assert "no daemon is running" in capsys.readouterr().err


def test_after_two_dashes_quiet_is_an_argument(capsys: pytest.CaptureFixture[str], created: IdentityInfo) -> None:
    del created
    assert main(["create-identity", "--", "--quiet"]) == 0
    assert "Created alice" in capsys.readouterr().err


def test_the_help_names_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--quiet" in capsys.readouterr().out
