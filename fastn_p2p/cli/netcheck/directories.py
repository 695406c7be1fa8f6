"""Check of the directories: each has the records of online identities, or takes and returns a test packet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from fastn_p2p_actors.credentials import verify_record
from fastn_p2p_actors.credentials.dns_packet import encode_txt_packet
from fastn_p2p_actors.credentials.pkarr import encode_key, join_body, read_signed_packet, signing_input
from fastn_p2p_actors.credentials.record_packet import record_in
from fastn_p2p_actors.vault.key_pair import KeyPair
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey

from ...console.formatting import format_duration
from .check import OFF, OK, PROBLEM, Check
from .http_probe import HttpResponse, request
from .relays import none_reason
from .time_limit import LIMIT, late_text, run_in_thread

_MOST_READ: Final = 3
"""Identities whose records are read back from each directory, which may limit requests."""
_CHECK_URL: Final = "check the name and the port, and whether a firewall blocks it. Directories: fastn-p2p config show"
_TTL: Final = 30
"""Seconds for which others may keep the test packet."""

Identities = Sequence[tuple[str, str]]
"""Name and ID52 of identities that are online."""
_Found = tuple[list[Check], list[HttpResponse]]


async def check_directories(urls: Sequence[str], identities: Identities, mode: str, seconds: float = LIMIT) -> _Found:
    """Return checks of each directory, and its answers, within so many seconds."""
    if not urls:
        return [Check(name="directory", state=OFF, text=none_reason("directories", mode))], []
    late: list[_Found] = [([_late(url, seconds)], []) for url in urls]
    found = await asyncio.gather(
        *(
            run_in_thread(_check, url, identities, seconds=seconds, otherwise=each)
            for url, each in zip(urls, late, strict=True)
        )
    )
    return [check for checks, _ in found for check in checks], [answer for _, answers in found for answer in answers]


def _late(url: str, seconds: float) -> Check:
    return Check(name="directory", state=PROBLEM, text=late_text(seconds), advice=_CHECK_URL, target=url)


def _check(url: str, identities: Identities) -> _Found:
    if not identities:
        check, test_answers = _publish_and_read(url)
        return [check], test_answers
    checks: list[Check] = []
    answers: list[HttpResponse] = []
    for name, id52 in identities[:_MOST_READ]:
        key = bytes(PublicKey(id52))
        answer = request("GET", f"{url.rstrip('/')}/{encode_key(key)}")
        answers.append(answer)
        if answer.status == 404:
            test, test_answers = _publish_and_read(url)
            answers += test_answers
            if test.state == PROBLEM:  # it takes no record at all
                return [*checks, test], answers
        checks.append(_published(url, name, key, answer))
        if answer.problem:
            break
    return checks, answers


def _published(url: str, name: str, key: bytes, answer: HttpResponse) -> Check:
    """Check the record of an identity that is online."""
    problem = _http_problem(url, answer)
    if problem is not None:
        return problem
    if answer.status == 404:
        text = f"it has no record of {name}, so peers do not find it there"
        advice = "wait a few seconds after identity-online and run this again; then see the log of the network process"
        return Check(name="directory", state=PROBLEM, text=text, advice=advice, target=url)
    try:
        record = verify_record(record_in(read_signed_packet(key, answer.body)), now=time.time())
    except P2PError as error:
        text = f"its record of {name} is not valid: {error}"
        advice = "restart the daemon, which publishes a new one, and check the clock"
        return Check(name="directory", state=PROBLEM, text=text, advice=advice, target=url)
    age = format_duration(max(0, int(time.time() * 1000) - record.sequence))
    return Check(name="directory", state=OK, text=f"has the record of {name}, {age} old", target=url, ms=answer.ms)


def _publish_and_read(url: str) -> tuple[Check, list[HttpResponse]]:
    """Publish a packet under a key that is made for it, and read it back."""
    pair = KeyPair.generate(memory := LockedMemory())
    name = encode_key(pair.public)
    packet = encode_txt_packet(f"_netcheck.{name}", b"fastn-p2p netcheck", ttl=_TTL)
    sequence = time.time_ns() // 1000
    body = join_body(pair.sign(signing_input(sequence, packet)), sequence, packet)
    memory.wipe()
    place = f"{url.rstrip('/')}/{name}"
    sent = request("PUT", place, body)
    problem = _http_problem(url, sent)
    if problem is not None or sent.status not in range(200, 300):
        return problem or _refused(url, "publish", sent), [sent]
    read = request("GET", place)
    if read.problem or read.body != body:
        text = read.problem or "it returns something else than was published"
        advice = "use another directory: fastn-p2p config set network.directories URL"
        return Check(name="directory", state=PROBLEM, text=text, advice=advice, target=url), [sent, read]
    return Check(name="directory", state=OK, text="publishes and returns a test packet", target=url, ms=read.ms), [
        sent,
        read,
    ]


def _http_problem(url: str, answer: HttpResponse) -> Check | None:
    if answer.problem:
        return Check(name="directory", state=PROBLEM, text=answer.problem, advice=_CHECK_URL, target=url)
    if answer.status not in range(200, 300) and answer.status != 404:
        return _refused(url, "read", answer)
    return None


def _refused(url: str, what: str, answer: HttpResponse) -> Check:
    if answer.status == 429:
        advice = "it limits the requests of this network: wait a minute"
    else:
        advice = "correct the URL, to which /KEY is appended: fastn-p2p config set network.directories URL"
    text = f"{what}: HTTP status {answer.status}"
    return Check(name="directory", state=PROBLEM, text=text, advice=advice, target=url)
