"""Log lines as JSON: complete on one line, escaped, bounded, and read as the records that were logged."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from fastn_p2p.cli.bug_report.log_excerpts import without_protocols
from fastn_p2p.cli.log_reader import LogSelection, read_records
from fastn_p2p_actors.runtime.json_log import line_without_time
from fastn_p2p_actors.runtime.log_files import make_handler
from fastn_p2p_actors.runtime.sampled_log import MAX_LINE
from fastn_p2p_client.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FASTN_LOG_FORMAT", "JSON")
    (tmp_path / "logs").mkdir()
    return Home(tmp_path)


def written(home: Home, *records: logging.LogRecord) -> list[str]:
    handler = make_handler(home, "network")
    for each in records:
        handler.handle(each)
    handler.close()
    return (home.logs / "network.log").read_text().splitlines()


def record(message: str, logger: str = "fastn_p2p_actors.network", error: Exception | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord(logger, logging.WARNING, "", 1, message, None, info)


def test_a_record_is_one_object_with_the_fields_of_the_command(home: Home) -> None:
    (line,) = written(home, record("lost\n\x1b[2J \ud800", error=ValueError("why\x07")))
    found = json.loads(line)
    assert list(found) == ["time", "level", "actor", "logger", "message", "trace", "request_id"]
    assert (found["actor"], found["level"]) == ("network", "WARNING")
    assert found["message"] == "lost\\n\\x1b[2J \\ud800"
    assert found["trace"] == "ValueError: why\\x07"
    (read,) = read_records(home.logs, LogSelection())
    assert [getattr(read, name) for name in found] == list(found.values())
    assert line_without_time(line).startswith("WARNING fastn_p2p_actors.network: lost")


@pytest.mark.parametrize("form", ["JSON", "text"])
def test_the_records_of_one_request_are_found(home: Home, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTN_LOG_FORMAT", form)
    about = record("refused [8]: no")
    about.request_id = "7f3a"
    lines = written(home, about, record("[7f3a]: not about it"))
    read = list(read_records(home.logs, LogSelection()))
    assert [each.request_id for each in read] == ["7f3a", ""]
    assert {each.logger for each in read} == {"fastn_p2p_actors.network"}
    assert list(read_records(home.logs, LogSelection(request_id="7f3a"))) == read[:1]
    assert read[0].message == "refused [8]: no"
    without_time = line_without_time(lines[0])
    assert without_time == "WARNING fastn_p2p_actors.network[7f3a]: refused [8]: no"


@pytest.mark.parametrize("text", ["x", '"', "\x1b", "\u00e9"])
def test_a_long_record_is_cut_and_stays_json(home: Home, text: str) -> None:
    (line,) = written(home, record(text * MAX_LINE, error=ValueError(text * MAX_LINE)))
    assert len(line) <= MAX_LINE
    found = json.loads(line)
    assert "more characters" in found["message"]
    assert "more characters" in found["trace"]


def test_a_report_leaves_out_what_protocols_wrote(home: Home) -> None:
    lines = written(home, record("secret", logger="shop"), record("ready", error=ValueError("secret")))
    shown = "\n".join(without_protocols(lines))
    assert "secret" not in shown
    assert "ready" in shown
    assert "ValueError: …" in shown
