"""Logs of all processes are read as records in the order of time, also while they are rotated and cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from fastn_p2p.cli.log_reader import LogRecord, LogSelection, follow_records, parse_level, read_records
from fastn_p2p.console.exit_codes import CommandLineError

ALL = LogSelection()


def line(second: int, text: str = "ready", level: str = "INFO", logger: str = "a.b") -> str:
    return f"2026-01-31T12:00:{second:02}.000Z {level} {logger}: {text}\n"


def texts(directory: Path, wanted: LogSelection = ALL) -> list[str]:
    return [f"{each.actor} {each.message}" for each in read_records(directory, wanted)]


def test_records_of_all_processes_are_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "network.log.1").write_text("the rest of a line\n" + line(1, "one") + line(3, "three"))
    (tmp_path / "network.log").write_text(line(5, "five") + line(6, "being written").rstrip("\n"))
    (tmp_path / "identity-alice.log").write_text(line(2, "two: 2") + line(4, "four", "ERROR") + "Traceback\n  File\n")
    assert texts(tmp_path) == [
        "network one", "identity-alice two: 2", "network three", "identity-alice four", "network five",
    ]  # fmt: skip
    assert texts(tmp_path, LogSelection(("alice",))) == ["identity-alice two: 2", "identity-alice four"]
    assert texts(tmp_path, LogSelection(("network",), since="2026-01-31T12:00:03")) == ["network three", "network five"]
    about = LogSelection(request_id="4711/1/2")
    for each in ("4711/1/2", "4711", "471", "4711/1/22", ""):
        assert about.has(LogRecord("", "INFO", "alice", "", "", request_id=each)) == (each in ("4711/1/2", "4711"))
    found = list(read_records(tmp_path, LogSelection(level="WARNING")))
    assert found == [
        LogRecord("2026-01-31T12:00:04.000Z", "ERROR", "identity-alice", "a.b", "four", "Traceback\n  File")
    ]
    assert texts(tmp_path / "missing") == []


def test_following_loses_and_repeats_nothing(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    log.write_text(line(1, "1"))

    def append(text: str) -> None:
        log.write_text(log.read_text() + text)

    def rotate() -> None:
        log.rename(tmp_path / "gateway.log.1")
        log.write_text(line(3, "3"))

    def cut() -> None:
        log.write_text(line(4, "4"))  # a confined process keeps the newer half of its file

    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: append(line(2, "2")),
            rotate,
            lambda: append("noise\n" + line(4, "4") + "x" * 500 + "\n"),
            cut,
            lambda: append(line(5, "5")),
            lambda: (tmp_path / "network.log").write_text(line(6, "6")),
        ]
    )
    followed = follow_records(tmp_path, ALL, wait=lambda: next(steps)())
    assert [each.message for each in islice(followed, 7)] == ["1", "2", "3", "4", "4", "5", "6"]


def test_levels() -> None:
    assert parse_level("warning") == "WARNING"
    with pytest.raises(CommandLineError, match="no level"):
        parse_level("loud")


def test_lines_of_text_and_of_json_are_the_same_records(tmp_path: Path) -> None:
    """The format of the log was changed between two starts."""
    json = b'{"time":"2026-01-31T12:00:02.000Z","level":"ERROR","actor":"x","logger":"a.b","message":"two"}'
    (tmp_path / "vault.log").write_bytes(line(1, "one").encode() + json + b"\n{broken\n" + line(3, "three").encode())
    found = list(read_records(tmp_path, ALL))
    assert [each.message for each in found] == ["one", "two", "three"]
    assert found[1].actor == "vault"
