"""Command lines of ``expose`` and ``open``: what they pass on, and what they reject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli import main
from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p.protocols._shared.service_address import InvalidAddress, parse_service
from fastn_p2p.protocols.web import loopback_server


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", "127.0.0.1:8000"),
        ("localhost:8000", "localhost:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("HTTP://localhost:8000/", "localhost:8000"),
        ("http://intranet", "intranet:80"),
        ("http://[::1]:81/", "[::1]:81"),
        ("http://[::1]", "[::1]:80"),
        ("unix:/run/web.sock", "unix:/run/web.sock"),
        ("/run/web.sock", "unix:/run/web.sock"),
        ("./web.sock", f"unix:{Path.cwd()}/web.sock"),
    ],
)
def test_services(text: str, address: str) -> None:
    assert str(parse_service(text)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no port"),
        ("0", "not a port"),
        ("99999", "not a port"),
        ("web", "no port"),
        ("https://127.0.0.1:8000", "plain HTTP"),
        ("http://127.0.0.1:8000/path", "All paths are exposed"),
        ("http://me@127.0.0.1:8000", "more than a host and a port"),
        ("http://", "no host"),
    ],
)
def test_what_is_no_service(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidAddress, match=words):
        parse_service(text)
    assert main(["expose", text]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_open(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def record(*arguments: Any, **options: Any) -> ExitCode:
        calls.append((*arguments, options))
        return ExitCode.OK

    monkeypatch.setattr(loopback_server, "open_service", record)
    assert main(["open", "bob"]) == 0
    assert main(["open", "bob", "wiki", "--port", "0", "--browser", "--every-user", "--as", "me", "--home", "/a"]) == 0
    assert calls == [
        (None, None, "bob", "web", {"port": None, "browser": False, "every_user": False, "json": False}),
        (Path("/a"), "me", "bob", "wiki", {"port": 0, "browser": True, "every_user": True, "json": False}),
    ]
    assert main(["open", "bob", "--port", "70000"]) == ExitCode.USAGE
