"""Log files in a flood: left-out lines are counted, and the files reach back a day."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_actors.runtime.sampled_log import FIRST_WINDOW, MAX_KINDS, MAX_LINE, SampledFileHandler
from tests.support.clock import Clock

FILE: Final = 200_000
KEPT: Final = 3


class Log:
    """Logger whose handler uses the test's clock."""

    def __init__(self, folder: Path, name: str = "sampled") -> None:
        self.clock = Clock()
        self.path = folder / f"{name}.log"
        self.handler = SampledFileHandler(
            self.path, file_bytes=FILE, kept=KEPT, now=self.clock.now, later=self.clock.later
        )
        self.handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def write(self, name: str, line: int, words: str, *arguments: object, exc_info: bool = False) -> None:
        """Log a line from a place in the code."""
        info = _raised() if exc_info else None
        self.handler.handle(logging.LogRecord(name, logging.WARNING, "code.py", line, words, arguments, info))

    def text(self) -> str:
        """Return all kept lines, the oldest first."""
        files = [self.path.with_name(f"{self.path.name}.{number}") for number in range(KEPT, 0, -1)] + [self.path]
        return "".join(file.read_text() for file in files if file.exists())


class Timed(logging.Formatter):
    """Formatter that begins with the clock's time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("%(message)s")
        self._clock = clock

    def format(self, record: logging.LogRecord) -> str:
        return f"{self._clock.time} {super().format(record)}"


def _raised() -> tuple[type[BaseException], BaseException, None]:
    return (ValueError, ValueError("x" * 3000), None)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.handler.close()


def counted(text: str) -> int:
    return sum(int(number.replace(",", "")) for number in re.findall(r"… and ([\d,]+) more like it", text))


def test_lines_at_a_human_pace_are_all_written(log: Log) -> None:
    for number in range(2000):
        log.write("network", 1, "connection %d opened", number)
        log.clock.advance(60)
    assert log.text().count("\n") == 2000
    assert "more like it" not in log.text()


def test_every_line_of_a_flood_is_written_or_counted(log: Log) -> None:
    for number in range(20_000):
        log.write("network", 1, "introduction over %s refused: %d", "abc", number)
    log.clock.advance(FIRST_WINDOW)
    text = log.text()
    lines = text.splitlines()
    assert lines[0] == "WARNING network: introduction over abc refused: 0"
    assert "… and" in lines[-1]
    assert "introduction over %s refused: %d" in lines[-1]
    assert len(lines) - 1 + counted(text) == 20_000
    assert len(text) < FILE


def test_a_flood_of_one_kind_costs_others_nothing(log: Log) -> None:
    for number in range(100_000):
        log.write("network", 1, "turned away %d", number)
        if number % 5000 == 0:
            log.write("network", 2, "the port has changed")
    assert log.text().count("the port has changed") == 20


FLOODS: Final[dict[str, Callable[[Log, int], None]]] = {
    "one kind": lambda log, number: log.write("network", 1, "refused %d", number),
    "formatted beforehand": lambda log, number: log.write("protocol", 1, f"refused {number} % of {number}s"),
    "with tracebacks": lambda log, number: log.write("identity", 1, "failed", exc_info=True),
    "a hundred thousand kinds": lambda log, number: log.write("protocol", number, "line %d", number),
    "many loggers": lambda log, number: log.write(f"logger {number}", 1, "line %d", number),
    "very long lines": lambda log, number: log.write("protocol", number % 3, "%s", "é" * 50_000),
    "all that there is": lambda log, number: log.write("gateway", number % 500, "%s", "x" * (number % 900)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_the_files_reach_back_a_day_under_any_flood(log: Log, flood: str) -> None:
    """After two days of flood, the oldest kept line is at least a day old."""
    log.handler.setFormatter(Timed(log.clock))
    for turn in range(2 * 24 * 30):
        for number in range(15):
            FLOODS[flood](log, turn * 15 + number)
        log.clock.advance(120)
    times = [float(time) for time in re.findall(r"^(\d+\.\d+) ", log.text(), re.MULTILINE)]
    assert times[0] <= 24 * 3600
    assert times[-1] > 47 * 3600, "and it goes on"
    assert sum(file.stat().st_size for file in log.path.parent.iterdir()) <= (KEPT + 1) * FILE
    assert len(log.handler._samples) <= MAX_KINDS + 1


def test_a_flood_that_lasts_is_counted_less_often_and_one_that_is_over_starts_anew(log: Log) -> None:
    for _ in range(24 * 60):
        for number in range(20):
            log.write("network", 1, "refused %d: %s", number, "x" * 500)
        log.clock.advance(60)
    assert 10 < len(re.findall("more like it", log.text())) < 60
    log.clock.advance(3 * 3600)
    assert log.handler._window == FIRST_WINDOW


def test_a_line_is_cut_where_it_is_too_long(log: Log) -> None:
    log.write("protocol", 1, "%s", "x" * 1_000_000)
    (line,) = log.text().splitlines()
    assert len(line) < MAX_LINE + 100
    assert line.endswith("more characters)")


def test_left_out_lines_are_counted_when_the_process_ends(log: Log) -> None:
    for number in range(20_000):
        log.write("vault", 1, "refused %d, whatever the reason", number)
    log.handler.close()
    text = log.text()
    assert text.count("refused") - 1 + counted(text) == 20_000


def test_a_process_that_is_started_again_and_again_starts_no_new_day(tmp_path: Path) -> None:
    log = Log(tmp_path, "restarted")
    for _ in range(40):
        log = Log(tmp_path, "restarted")
        for number in range(1000):
            log.write("identity", 1, "failed %d: %s", number, "x" * 50)
        log.handler.close()
    assert len(log.text()) < KEPT * FILE / 2


def test_a_line_that_cannot_be_written_does_not_affect_others(log: Log, tmp_path: Path) -> None:
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        log.write("protocol", 1, "%d", "no number")
        log.write("protocol", 2, "\ud800 half a surrogate")
        log.write("protocol", 3, "fine")
    finally:
        logging.raiseExceptions = before
    assert "fine" in log.text()
