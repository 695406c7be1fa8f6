"""Command lines of ``stream`` and ``forward``: arguments that they pass on, and arguments that they reject."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli import main, stream
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p.protocols._shared.service_address import ServiceAddress
from fastn_p2p.protocols.tunnel import forwarder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record the functions that a command would run, with their arguments."""
    calls: list[tuple[Any, ...]] = []

    def record(*arguments: Any) -> ExitCode:
        calls.append(arguments)
        return ExitCode.OK

    monkeypatch.setattr(stream, "stream", record)
    monkeypatch.setattr(forwarder, "forward", record)
    return calls


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_stream(calls: list[tuple[Any, ...]]) -> None:
    assert main(["stream", "bob", "Chat"]) == 0
    assert calls == [(None, None, "bob", "Chat", "default", None, 10.0, False, "")]


def test_stream_with_everything(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    file = tmp_path / "initial.json"
    file.write_text('{"room": "kitchen"}')
    options = ["--data", f"@{file}", "--as", "alice", "--timeout", "2.5", "--home", "/a", "--request-id", "7f"]
    assert main(["stream", "bob", "Chat", "backup", *options]) == 0
    assert calls == [(Path("/a"), "alice", "bob", "Chat", "backup", {"room": "kitchen"}, 2.5, False, "7f")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bob"], "PROTOCOL"),
        (["bob", "Chat", "--data", "hello"], "--data is not JSON"),
        (["bob", "Chat", "--data", "@/nowhere"], "cannot read '/nowhere'"),
        (["bob", "Chat", "--timeout", "0"], "--timeout"),
        (["bob", "Chat", "--timeout", "nan"], "--timeout"),
    ],
)
def test_stream_misused(
    capsys: pytest.CaptureFixture[str], calls: list[tuple[Any, ...]], arguments: list[str], words: str
) -> None:
    assert words in usage_error(capsys, "stream", *arguments)
    assert calls == []


def test_stream_without_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Said before anything is sent: what comes back would be lost."""
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        code = main(["stream", "bob", "Chat", "--home", str(tmp_path)])
    assert code == ExitCode.STORAGE
    assert capsys.readouterr().err == "fastn-p2p: standard output is closed\n"


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9000", ServiceAddress("127.0.0.1", 9000)),
        ("127.0.0.1:0", ServiceAddress("127.0.0.1", 0)),
        ("unix:/run/web.sock", ServiceAddress("", 0, "/run/web.sock")),
    ],
)
def test_forward(calls: list[tuple[Any, ...]], listen: str, address: ServiceAddress) -> None:
    assert main(["forward", "bob", "web", "--listen", listen, "--as", "alice", "--home", "/a"]) == 0
    assert main(["forward", "bob", "--listen", listen]) == 0
    assert calls == [
        (Path("/a"), "alice", "bob", "web", address, False),
        (None, None, "bob", "default", address, False),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bob", "web"], "--listen"),
        (["bob", "web", "--listen", "9000"], "--listen: '9000' has no host. Write 127.0.0.1:9000"),
        (["bob", "web", "--listen", "localhost"], "no port"),
        (["bob", "web", "--listen", "localhost:99999"], "from 0 to 65535"),
        (["bob", "web", "--listen", "unix:"], "needs the path"),
    ],
)
def test_forward_misused(
    capsys: pytest.CaptureFixture[str], calls: list[tuple[Any, ...]], arguments: list[str], words: str
) -> None:
    assert words in usage_error(capsys, "forward", *arguments)
    assert calls == []


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("203.0.113.1:80", "203.0.113.1:80: Cannot assign requested address"),
        ("no-such-host.invalid:80", "the host name is unknown"),
        ("unix:/nowhere/at/all", "No such file or directory"),
    ],
)
def test_forward_where_it_cannot_listen(capsys: pytest.CaptureFixture[str], listen: str, words: str) -> None:
    assert words in usage_error(capsys, "forward", "bob", "web", "--listen", listen)


def test_forward_where_something_listens_already(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert main(["forward", "bob", "web", "--listen", address]) == ExitCode.EXISTS
    assert capsys.readouterr() == ("", f"fastn-p2p: --listen: {address}: another process already listens there\n")
