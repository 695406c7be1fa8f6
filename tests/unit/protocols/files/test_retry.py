"""Retry policy of one transfer: only time in which something was tried counts towards its timeout."""

from __future__ import annotations

import pytest

from fastn_p2p.protocols.files import retry as module
from fastn_p2p.protocols.files.retry import TransferRetry
from fastn_p2p_client.errors import ConnectionLost

LOST = ConnectionLost(what="the connection")


@pytest.mark.parametrize(("gaps", "attempts"), [([3.0] * 40, 21), ([7200.0] + [3.0] * 40, 22), ([3.0, 1e6] * 3, 6)])
async def test_only_time_of_trying_counts(monkeypatch: pytest.MonkeyPatch, gaps: list[float], attempts: int) -> None:
    """A laptop that slept, or Ctrl-Z and fg two hours later, is not the end of a transfer."""
    monkeypatch.setattr(module, "_FIRST_DELAY", 0.0)
    now = 0.0
    made = 0

    async def fail() -> None:
        nonlocal now, made
        if made == len(gaps):
            raise KeyError  # it would go on
        now += gaps[made]
        made += 1
        raise LOST

    retry_timeout = TransferRetry(lambda _: None, 60.0, clock=lambda: now)
    retry_timeout.reset()
    with pytest.raises((ConnectionLost, KeyError)):
        await retry_timeout.run(fail)
    assert made == attempts
