"""Sampling of log lines, because strangers cause them as fast as they connect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from fastn_p2p_actors.runtime.rate_limiter import Rate, TokenBucket
from fastn_p2p_client.plain_text import plain

LINE_RATE: Final = Rate(0.1, 10)
"""Lines from one place in the code: ten at once, then one every 10 seconds."""


class LogSampling(logging.Filter):
    """Filter that leaves out lines above ``LINE_RATE``. The next line of the same place says how many.

    Args:
        now: return monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._call_sites: dict[tuple[str, int], tuple[TokenBucket, list[int]]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        call_site = (record.pathname, record.lineno)
        now = self._now()
        bucket, left_out = self._call_sites.setdefault(call_site, (TokenBucket(LINE_RATE, now), [0]))
        if not bucket.try_spend(now):
            left_out[0] += 1
            return False
        if left_out[0]:
            record.msg, record.args = f"{record.getMessage()} (and {left_out[0]} more like it)", None
            left_out[0] = 0
        return True


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record)) if record.exc_info is None else super().format(record)


def configure_log(level: int = logging.INFO) -> None:
    """Write the log lines of this process to standard error, sampled. aiohttp's and aioquic's own lines are left out:
    they report what strangers send."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(LogSampling())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("aiohttp", "asyncio", "quic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
