"""``idle_time``: texts for idle times."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.daemon_settings.idle_time import format_idle_time, parse_idle_time


@pytest.mark.parametrize(
    ("text", "seconds"), [("off", 0), ("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7200), ("30d", 30 * 86_400)]
)
def test_times(text: str, seconds: int) -> None:
    assert parse_idle_time(text) == seconds
    assert parse_idle_time(format_idle_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "0s", "15", "m", "1.5h", "31d", "-1s", "15 m", "15M", "99999999s"])
def test_wrong_times(text: str) -> None:
    with pytest.raises(ValueError, match="as 90s, 15m, 2h or 1d; or off"):
        parse_idle_time(text)
