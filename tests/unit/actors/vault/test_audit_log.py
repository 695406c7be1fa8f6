"""Audit log: whose line it is, what a flood and a full disk do to it, and how it is read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p.cli.audit_reader import follow_lines, parse_since, read_lines
from fastn_p2p.console.exit_codes import CommandLineError
from fastn_p2p_actors.runtime.sampled_log import SampledFileHandler
from fastn_p2p_actors.vault import audit_log as module
from fastn_p2p_actors.vault.audit_events import record_reply
from fastn_p2p_actors.vault.audit_log import FILE_BYTES, FILES_KEPT, AuditLog
from fastn_p2p_actors.vault.messages import CreateKey, GetTransport, IdentityKey, ListKeys, TransportKey
from fastn_p2p_client.ipc.messages import Ack

Reader = Callable[[Path], Iterator[dict[str, Any]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@contextmanager
def opened(path: Path) -> Iterator[AuditLog]:
    log = AuditLog(path, lambda: 1_800_000_000.25)
    try:
        yield log
    finally:
        log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path))


def test_line_has_time_actor_and_event(path: Path) -> None:
    with opened(path) as log:
        log.record("vault", "key-created", {"identity": "alice"})
    assert path.read_text() == (
        '{"time":"2027-01-15T08:00:00.250Z","actor":"vault","event":"key-created","identity":"alice"}\n'
    )


def test_reporter_cannot_claim_to_be_another_actor(path: Path) -> None:
    with opened(path) as log:
        log.record("gateway", "command", {"actor": "vault", "event": "record-signed", "time": "1970", "name": "x\ny"})
    (line,) = lines(path)
    assert (line["actor"], line["event"], line["name"]) == ("gateway", "command", "x\ny")
    assert path.read_text().count("\n") == 1


def test_new_process_continues_the_file(path: Path) -> None:
    for number in range(3):
        with opened(path) as log:
            log.record("vault", "key-created", {"number": number})
    assert [line["number"] for line in lines(path)] == [0, 1, 2]


def test_flood_of_one_kind_is_counted_and_hides_no_other_kind(path: Path) -> None:
    with opened(path) as log:
        flood = logging.LogRecord("network: admitted", 20, "", 0, '{"n":1}' + " " * 200, None, None)
        for _ in range(100_000):
            log._handler.handle(flood)
        log.record("gateway", "command", {"command": "BlockPeer"})
    kept = lines(path)
    assert [line["event"] for line in kept] == ["command", "left-out"]
    assert kept[1]["of"] == "network: admitted"
    assert kept[1]["count"] > 50_000
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    assert size < FILE_BYTES * (FILES_KEPT + 1)


def test_full_disk_loses_lines_and_counts_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    write = SampledFileHandler._write

    def refuse(self: SampledFileHandler, line: str) -> int:
        if full:
            raise OSError(28, "No space left on device")
        return write(self, line)

    monkeypatch.setattr(SampledFileHandler, "_write", refuse)
    with opened(path) as log:
        for _ in range(3):
            log._handler.handle(logging.LogRecord("vault: x", 20, "", 0, "{}", None, None))
        full = False
        log.record("vault", "key-created", {})
    assert [(line["event"], line.get("count")) for line in lines(path)] == [("lost", 3), ("key-created", None)]


def test_a_disk_that_hangs_does_not_delay_the_vault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 2)
    with opened(path) as log:
        assert log._handler.lock is not None
        with log._handler.lock:  # the writing thread waits for it, as for a disk
            for _ in range(10):
                log.record("vault", "key-created", {})
        log._queue.put(logging.LogRecord("vault: last", 20, "", 0, "{}", None, None))
    kept = lines(path)
    written = sum(line["event"] == "key-created" for line in kept)
    assert written + sum(line["count"] for line in kept if line["event"] == "lost") == 10
    assert 2 <= written <= 3


def test_rotated_files_are_read_in_their_order(path: Path) -> None:
    for number, file in ((0, "audit.jsonl.2"), (1, "audit.jsonl.1"), (2, "audit.jsonl")):
        line = {"time": "t", "actor": "a", "event": "e", "number": number}
        path.with_name(file).write_text(json.dumps(line) + "\n" + '{"broken\n[]\n{"time": 1}\n')
    with path.open("a") as file_to_extend:
        file_to_extend.write('{"time": "t", "actor": "a", "event": "unfinished"')
    assert [line["number"] for line in lines(path)] == [0, 1, 2]


@pytest.mark.parametrize("read", [read_lines, follow_lines])
def test_a_rotation_while_it_is_read_neither_loses_nor_repeats_a_line(path: Path, read: Reader) -> None:
    old, older = path.with_name("audit.jsonl.1"), path.with_name("audit.jsonl.2")
    write_numbers(old, range(3))
    write_numbers(path, range(3, 6))
    found = read(path)
    numbers = [next(found)["number"]]
    old.rename(older)
    path.rename(old)
    write_numbers(path, range(6, 9))
    numbers += [line["number"] for line in islice(found, 5)]
    assert numbers == list(range(6))
    if read is follow_lines:
        assert [line["number"] for line in islice(found, 3)] == [6, 7, 8]
        for number in range(3, 0, -1):
            each = path.with_name(f"audit.jsonl.{number}")
            each.unlink(missing_ok=True)
        write_numbers(old, range(9, 12))
        path.unlink()
        write_numbers(path, range(12, 15))
        assert [line["number"] for line in islice(found, 6)] == list(range(9, 15)), "all was rotated away meanwhile"


def write_numbers(path: Path, numbers: Iterable[int]) -> None:
    path.write_text("".join(f'{{"time": "t", "actor": "a", "event": "e", "number": {number}}}\n' for number in numbers))


def test_log_that_does_not_exist_has_no_lines(path: Path) -> None:
    assert lines(path) == []


def test_replies_become_events_without_secrets() -> None:
    found: list[tuple[str, str, dict[str, object]]] = []

    def record(actor: str, event: str, fields: Any) -> None:
        found.append((actor, event, dict(fields)))

    record_reply(record, "network", GetTransport(), TransportKey(b"s" * 32, b"p" * 32, 3, b"l"))
    record_reply(record, "gateway", CreateKey("alice"), IdentityKey("alice", bytes(32), "2026"))
    record_reply(record, "gateway", ListKeys(), Ack())
    assert [event for _, event, _ in found] == ["transport-key-given", "key-created"]
    assert found[0][2] == {"endpoint": (b"p" * 32).hex(), "epoch": 3, "for": "network"}
    assert found[1][2]["identity"] == "alice"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("30m", "2026-01-31T11:30:00"),
        ("12h", "2026-01-31T00:00:00"),
        ("7d", "2026-01-24T12:00:00"),
        ("2026-01-31", "2026-01-31T00:00:00"),
        ("2026-01-31T10:00", "2026-01-31T10:00:00"),
        ("2026-01-31T10:00+02:00", "2026-01-31T08:00:00"),
    ],
)
def test_since_is_a_span_or_a_time(text: str, expected: str) -> None:
    assert parse_since(text, datetime(2026, 1, 31, 12, tzinfo=UTC)) == expected


@pytest.mark.parametrize("text", ["yesterday", "7", "h", "-1h", "999999d", "2026-13-01"])
def test_since_that_is_no_time_says_what_to_give(text: str) -> None:
    with pytest.raises(CommandLineError, match="12h"):
        parse_since(text)
