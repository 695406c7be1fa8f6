"""Checks of the relays and of the clock: each relay answers ``GET /ping``, and HTTP servers say what time it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from fastn_p2p_actors.daemon_settings.server_urls import ping_url

from .check import OFF, OK, PROBLEM, UNKNOWN, Check
from .http_probe import HttpResponse, request
from .time_limit import DNS_TIMEOUT, LIMIT, late_text, run_in_thread

_TOLERANCE: Final = 60.0
"""Seconds that a clock may be wrong: credentials allow for as much."""


async def check_relays(
    urls: Sequence[str], mode: str, seconds: float = LIMIT
) -> tuple[list[Check], list[HttpResponse]]:
    """Return a check of each relay, and the answers of them, within so many seconds."""
    if not urls:
        return [Check(name="relay", state=OFF, text=none_reason("relays", mode))], []
    late = HttpResponse(0, b"", seconds * 1000, None, late_text(seconds))
    answers = await asyncio.gather(
        *(run_in_thread(request, "GET", ping_url(url), seconds=seconds, otherwise=late) for url in urls)
    )
    return [_check(url, answer) for url, answer in zip(urls, answers, strict=True)], list(answers)


def _check(url: str, answer: HttpResponse) -> Check:
    if answer.problem:
        advice = "check the name and the port, and whether a firewall blocks it. Relays: fastn-p2p config show"
        return Check(name="relay", state=PROBLEM, text=answer.problem, advice=advice, target=url)
    if answer.status != 200:
        text = f"it answers /ping with HTTP status {answer.status}, so it is not a relay"
        advice = "correct the URL: fastn-p2p config set network.relays URL"
        return Check(name="relay", state=PROBLEM, text=text, advice=advice, target=url)
    return Check(name="relay", state=OK, text="answers", target=url, ms=answer.ms)


def check_clock(answers: Sequence[HttpResponse]) -> Check:
    """Compare this machine's clock with the ``Date`` of each answer. The median counts: one server may be wrong."""
    offsets = sorted(each.clock_offset for each in answers if each.clock_offset is not None)
    if not offsets:
        text = "no relay and no directory has said what time it is"
        return Check(name="clock", state=UNKNOWN, text=text)
    offset = offsets[len(offsets) // 2]
    if abs(offset) <= _TOLERANCE:
        return Check(name="clock", state=OK, text=f"right within {_TOLERANCE:g} s")
    direction = "behind" if offset > 0 else "ahead"
    text = f"this machine's clock is {abs(offset):.0f} s {direction}, and peers allow for {_TOLERANCE:g} s"
    return Check(name="clock", state=PROBLEM, text=text, advice="set the clock, for instance by NTP")


def check_dns(answers: Sequence[HttpResponse]) -> list[Check]:
    """Return a check of DNS if it has not answered."""
    missing = sum(each.lacks_dns for each in answers)
    if not missing:
        return []
    text = f"it has not answered within {DNS_TIMEOUT:g} s, so {missing} of {len(answers)} requests were not sent"
    advice = "correct the DNS servers of this machine (/etc/resolv.conf), or allow UDP port 53 in the firewall"
    return [Check(name="DNS", state=PROBLEM, text=text, advice=advice)]


def none_reason(what: str, mode: str) -> str:
    return f"the settings name no {what}" if mode == "internet" else f"network mode {mode} uses no {what}"
