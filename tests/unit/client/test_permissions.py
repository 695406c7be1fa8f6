"""Permissions are lines of text that owners read, and a grant covers what it says and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_client.permissions import Permissions, missing, needs_resolver, port_of


def test_each_permission_is_a_line_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    asked = Permissions(
        read=["/srv/files", Path("/srv/../etc/x/"), "/srv/files"],
        write=["~/inbox"],
        connect=["127.0.0.1:8000", "[::1]:80", "example.org:443", "*:443", "*", "unix:/run/../run/web.sock"],
        listen=["0.0.0.0:8080"],
        programs=["/usr/bin/git"],
    )
    lines = (
        "read /srv/files",
        "read /etc/x",
        "write /home/alice/inbox",
        *("connect 127.0.0.1:8000", "connect [::1]:80", "connect example.org:443", "connect *:443", "connect *"),
        "connect unix:/run/web.sock",
        "listen 0.0.0.0:8080",
        "program /usr/bin/git",
    )
    assert asked.lines() == lines
    assert Permissions.of(lines).lines() == lines
    assert Permissions().lines() == ()


@pytest.mark.parametrize(
    "asked",
    [
        Permissions(read=["files"]),
        Permissions(write=["/srv/a\nread /etc"]),
        Permissions(read=["/srv/a\0b"]),
        Permissions(read=[""]),
        Permissions(connect=["127.0.0.1"]),
        Permissions(connect=["127.0.0.1:65536"]),
        Permissions(connect=["127.0.0.1:http"]),
        Permissions(connect=["::1:80"]),
        Permissions(connect=["unix:web.sock"]),
        Permissions(listen=["a b:80"]),
        Permissions(programs=["git"]),
    ],
    ids=repr,
)
def test_a_value_that_is_no_permission_is_refused(asked: Permissions) -> None:
    with pytest.raises(ValueError, match=r"is not an a"):
        asked.lines()


@pytest.mark.parametrize("line", ["", "read", "read ", "own /srv", "READ /srv", "write srv"])
def test_a_line_that_is_no_permission_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"is no permission|is not an absolute path"):
        Permissions.of([line])


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ("read /srv", "read /srv", True),
        ("read /srv", "read /srv/a/b", True),
        ("read /srv", "read /srvice", False),
        ("read /srv/a", "read /srv", False),
        ("read /srv", "write /srv", False),
        ("write /srv", "read /srv/a", True),
        ("write /srv", "program /srv/a", False),
        ("program /srv", "program /srv/a", False),
        ("connect *", "connect example.org:443", True),
        ("connect *", "connect unix:/run/web.sock", False),
        ("connect *", "listen 127.0.0.1:80", False),
        ("connect *:443", "connect example.org:443", False),
        ("connect 127.0.0.1:80", "connect 127.0.0.1:8000", False),
    ],
)
def test_a_grant_covers_paths_below_it_and_its_addresses(held: str, wanted: str, covered: bool) -> None:
    assert missing([wanted], [held]) == (() if covered else (wanted,))


def test_ports_and_names_of_addresses() -> None:
    assert [port_of(each) for each in ("127.0.0.1:80", "[::1]:81", "*:82", "*", "unix:/a:80")] == [
        80,
        81,
        82,
        None,
        None,
    ]
    named = ["example.org:443", "*:443"]
    numbered = ["127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/run/web.sock"]
    assert [needs_resolver(each) for each in named + numbered] == [True] * 2 + [False] * 4
