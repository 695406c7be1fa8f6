"""Output of the commands of ``fastn-p2p files``, and progress of a transfer; alice's side runs in this process."""

from __future__ import annotations

import io
import json
import re
import sys
import typing

import pytest

import fastn_p2p_client.ipc.messages as m
from fastn_p2p.cli import main
from fastn_p2p.protocols.files import cli, errors
from fastn_p2p.protocols.files.events import (
    AlreadyPresent,
    EntrySkipped,
    Event,
    FileCompleted,
    FileLost,
    FileProgress,
    FileRestarted,
    FileStarted,
    OfferChanged,
    Retrying,
)
from fastn_p2p.protocols.files.progress import progress_output
from tests.support.file_commands import FileCommands, identity_info
from tests.support.file_peers import make_files, snapshot


def test_a_listing_is_a_line_for_each_entry(commands: FileCommands, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(commands.root, {"b": b"12345", "a/": b"", "a\nb": b""})
    assert main(["files", "ls", "alice"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"directory\t-\t[0-9T:Z-]+\ta\nfile\t5\t2023-11-14T22:13:20Z\tb\n", out)
    assert err == "a\\nb: it has a name that cannot be transferred\n"
    assert main(["files", "ls", "alice", "./b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == 5
    assert main(["files", "ls", "alice", "gone"]) == 1
    assert capsys.readouterr() == ("", "fastn-p2p: gone: there is no file or directory with this name\n")


def test_get_says_what_came_of_it(commands: FileCommands, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(commands.root, {"a": b"new", "b": 2000, "c": 3})
    make_files(commands.here, {"a": b"mine"})
    assert main(["files", "get", "alice", "a", "b", "c", "--to", str(commands.here)]) == 8
    out, err = capsys.readouterr()
    assert out == ""
    assert "a: another file has this name already\n" in err
    assert re.search(r"^2 files, 2\.0 kB in \d\.\d s \(.*/s\); 1 failed$", err, re.MULTILINE)
    assert main(["files", "get", "alice", "/", "--to", str(commands.here / "new"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1].items() >= {"event": "end", "done": 3, "kept": 0, "skipped": 0, "failed": 0}.items()
    assert snapshot(commands.here / "new") == snapshot(commands.root)


def test_put_says_that_the_offer_waits_and_names_it(commands: FileCommands, capsys: pytest.CaptureFixture[str]) -> None:
    make_files(commands.here, {"a": b"a"})
    put = ["files", "put", "alice", str(commands.here / "a"), "--timeout", "0"]
    assert main(put) == 6
    err = capsys.readouterr().err
    (offer,) = set(re.findall(r"offer ([0-9a-f]{16})", err))
    assert f"`fastn-p2p files accept {offer}`" in err
    assert main(["files", "offers"]) == 0
    assert capsys.readouterr().out.split("\t")[:5] == [offer, "bob", "waiting", "1", "1"]
    assert main(["files", "accept", offer]) == 0
    assert capsys.readouterr().err == f"Offer {offer} is accepted.\n"
    assert main(put) == 0
    assert f"Offer {offer} is complete" in capsys.readouterr().err
    assert snapshot(commands.inbox) == snapshot(commands.here)
    assert main(["files", "reject", offer]) == 0
    assert capsys.readouterr().err == f"Offer {offer} is finished.\n"


@pytest.mark.parametrize(
    ("identities", "arguments", "code"),
    [
        ([identity_info("alice")], [], 0),
        ([identity_info("alice", online=False), identity_info("bob", online=False)], [], 11),
        ([identity_info("alice"), identity_info("bob")], [], 2),
        ([identity_info("alice"), identity_info("bob")], ["--as", "alice"], 0),
        ([identity_info("alice"), identity_info("bob")], ["--as", "carol"], 7),
    ],
)
def test_whose_inbox_it_is(
    commands: FileCommands,
    capsys: pytest.CaptureFixture[str],
    identities: list[m.IdentityInfo],
    arguments: list[str],
    code: int,
) -> None:
    commands.stub.identities = identities
    assert main(["files", "offers", *arguments]) == code
    if code == 0:
        assert capsys.readouterr() == ("", "No offers.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "alice", "../up"],
        ["get", "alice", "x/a", "y/a"],
        ["get", "alice", "a", "--to", "/nowhere/at/all"],
        ["get", "alice", "a", "--to", "/etc/passwd"],
        ["get", "alice"],
        ["put", "alice", "/etc/passwd", "--timeout", "-1"],
        ["put", "alice", "/etc/passwd", "/etc/../etc/passwd"],
        ["put", "alice", "/dev/null"],
        ["accept"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_reported_before_the_daemon_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(cli, "Client", lambda *_, **__: pytest.fail("the daemon was asked"))
    assert main(["files", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_local_files_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["files", "put", "alice", "/nowhere/at/all"]) == 74
    assert capsys.readouterr().err == "fastn-p2p: /nowhere/at/all: No such file or directory\n"


# ── what is seen of a transfer ───────────────────────────────────────────────────────────────────

STORY: list[Event] = [
    OfferChanged("0123", "accepted", 3, 3000),
    EntrySkipped("link", "it is a link"),
    AlreadyPresent("kept", 1000),
    FileStarted("a", 1000, 0),
    FileProgress("a", 500),
    FileProgress("a", 600),
    Retrying("the connection went away", 0.1),
    FileRestarted("a"),
    FileStarted("a", 1000, 600),
    FileCompleted("a", 1000),
    FileStarted("b" * 60, 1000, 0),
    FileLost("b" * 60, "DiskFull", "there is no space left\x1b[31m"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with progress_output(json=False) as report:
        for event in STORY:
            report(event)
    shown = terminal.getvalue()
    for words in ("link: skipped: it is a link", "retrying", "begins anew", "no space left", "3.0/3.0 kB"):
        assert words in shown
    assert "\x1b[31mx" not in shown
    assert "left\\x1b[31m" in shown


def test_words_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_output(json=False) as report:
        for event in STORY:
            report(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 5
    assert "\x1b" not in err


def test_lines_of_json_for_scripts_and_not_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_output(json=True) as report:
        for event in STORY:
            report(event)
    out, err = capsys.readouterr()
    assert err == ""
    events = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in events].count("moved") == 1
    assert len(events) == len(STORY) - 1
    assert events[0] == {"event": "offer", "offer": "0123", "state": "accepted", "files": 3, "bytes": 3000}


def test_every_kind_of_failure_is_explained() -> None:
    kinds = set(typing.get_args(errors.Kind))
    assert set(re.findall(r"^``(\w+)``", errors.__doc__ or "", re.MULTILINE)) == kinds
    assert set(cli._EXITS) <= kinds
