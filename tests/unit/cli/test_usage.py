"""Usage errors: reported before a request to the daemon, with exit code 2."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli import main
from fastn_p2p.cli.commands import call, daemon
from fastn_p2p.console import control_request

HELLO = '{"message": "Hello P2P!"}'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_arguments: Any, **_options: Any) -> None:
        pytest.fail("the daemon was asked")

    monkeypatch.setattr(control_request, "request_daemon", unexpected)
    monkeypatch.setattr(call, "_call", unexpected)


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The words with which the command line is refused."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_call_with_empty_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    stdin(monkeypatch, content)
    words = refused(capsys, "call", "bob", "Echo")
    assert "standard input is empty" in words
    assert "--data" in words


def test_call_from_a_terminal_does_not_wait_for_typing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert "echo" in refused(capsys, "call", "bob", "Echo")


@pytest.mark.parametrize("content", [b"hello", b'{"message": ', b"\xff\xfe", b"{'message': 'x'}", b"[" * 100_000])
def test_call_with_a_request_that_is_not_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    stdin(monkeypatch, content)
    assert "not JSON" in refused(capsys, "call", "bob", "Echo")


def test_call_with_data_that_is_not_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--data" in refused(capsys, "call", "bob", "Echo", "--data", "hello")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_call_with_a_senseless_timeout(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    assert "--timeout" in refused(capsys, "call", "bob", "Echo", "--data", HELLO, "--timeout", seconds)


@pytest.mark.parametrize("config", ["{", "max_length=1", ""])
def test_config_that_is_not_json(capsys: pytest.CaptureFixture[str], config: str) -> None:
    words = refused(capsys, "add-protocol", "alice", "--protocol", "Echo", "--config", config)
    assert "--config" in words
    assert "not JSON" in words


def test_config_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    words = refused(capsys, "add-protocol", "alice", "--protocol", "Echo", "--config", f"@{file}")
    assert "cannot read" in words


def test_add_protocol_needs_a_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--protocol" in refused(capsys, "add-protocol", "alice")


def test_deletes_nothing_without_confirmation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"y\n")
    assert "--yes" in refused(capsys, "delete-identity", "alice")


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yess\n"])
def test_deletion_that_is_not_confirmed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["delete-identity", "alice"]) == 130


def test_revokes_nothing_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"alice\n")
    assert "--yes" in refused(capsys, "identity", "revoke", "alice")


@pytest.mark.parametrize("answer", ["y\n", "\n", "", "alice2\n", "ALICE\n"])
def test_revocation_that_is_not_confirmed_by_name(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["identity", "revoke", "alice"]) == 130


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config, --allow, --reset-allow, --claims, --grant or --yes"),
        (["--allow", "peers", "--reset-allow"], "exclude each other"),
        (["--config", "{"], "--config is not JSON"),
        (["--config", "@/nowhere"], "/nowhere"),
    ],
)
def test_a_change_that_is_none(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert words in refused(capsys, "set-protocol", "alice", "--protocol", "Echo", *arguments)


def test_an_unknown_network_mode_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    words = refused(capsys, "daemon", "--network", "wan")
    for mode in ("local", "lan", "internet"):
        assert mode in words


def test_network_modes_are_those_of_the_daemon() -> None:
    from fastn_p2p_actors.daemon_settings.sections import NetworkMode

    assert tuple(daemon.NetworkOption) == NetworkMode.ALL
