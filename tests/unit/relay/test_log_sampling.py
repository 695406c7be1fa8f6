"""A flood of log lines from one place becomes a few lines with a count."""

from __future__ import annotations

import logging

from fastn_p2p.relay.log_sampling import LINE_RATE, LogSampling


def record(line: int, message: str = "from %s", *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("relay", logging.INFO, "relay.py", line, message, arguments, None)


def test_a_flood_is_counted_and_others_are_not_affected() -> None:
    now = 0.0
    sampling = LogSampling(lambda: now)
    burst = int(LINE_RATE.burst)
    passed = [sampling.filter(record(1, "from %s", number)) for number in range(1000)]
    assert passed == [True] * burst + [False] * (1000 - burst)
    assert sampling.filter(record(2, "another place"))
    now = 1 / LINE_RATE.per_second
    later = record(1, "from %s", "alice")
    assert sampling.filter(later)
    assert later.getMessage() == f"from alice (and {1000 - burst} more like it)"
    now *= 2
    last = record(1, "from %s", "bob")
    assert sampling.filter(last)
    assert last.getMessage() == "from bob"
