"""Text of a ``PeerTrace``: one line for each step, then what is wrong and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastn_p2p_client.ipc.messages import PeerTrace, TraceAttempt, TraceRecord, TraceSource
from fastn_p2p_client.plain_text import plain

from ..console.exit_codes import ExitCode
from ..console.formatting import format_count, format_duration, format_latency

_INDENT = " " * 11


def lines_of(trace: PeerTrace, now: float | None = None) -> Iterator[str]:
    """Yield the lines for a terminal. Control characters that a peer chose are escaped."""
    return map(plain, _lines(trace, time.time() if now is None else now))


def exit_code(trace: PeerTrace) -> ExitCode:
    """Return 0 if a call can be made as far as is known, or else the exit code that it would end with."""
    if not trace.problem:
        return ExitCode.OK
    if trace.access == "denied":
        return ExitCode.DENIED
    if trace.access == "not offered":
        return ExitCode.NOT_FOUND
    if trace.connected and not trace.identity:
        return ExitCode.OFFLINE
    return ExitCode.PEER


def _lines(trace: PeerTrace, now: float) -> Iterator[str]:
    if not trace.id52:
        yield _step("name", f"{trace.peer}: {trace.problem}")
        yield _step("try", trace.advice)
        return
    also = f", {trace.petname} in the address book" if trace.petname and trace.petname != trace.peer else ""
    yield _step("name", f"{trace.peer} ({trace.kind}{also})")
    yield _step("key", trace.id52)
    if trace.path == "local":
        yield _step("path", "an identity of this daemon: no network is needed")
    else:
        yield from _labelled("source", [line for source in trace.sources for line in _source(source, now)])
        if trace.was_connected:
            yield _step("dialled", "nothing: there was a connection already")
        else:
            attempts = [_attempt(each) for each in trace.attempts]
            yield from _labelled("dialled", attempts or ["nothing: no address is known"])
    if trace.endpoint:
        rtt = "no answer to a ping" if trace.rtt_ms is None else f"{format_latency(trace.rtt_ms)} ms"
        yield _step("path", f"{trace.path} {trace.address}, {rtt}")
        yield _step("proof", f"endpoint {trace.endpoint[:10]} has proved that it speaks for the identity")
    if trace.connected:
        what = f"{trace.protocol} ({trace.instance}) as {trace.identity}: " if trace.protocol and trace.identity else ""
        reason = f", because {trace.access_reason}" if trace.access_reason not in ("", trace.problem) else ""
        yield _step("access", f"{what}{trace.access or 'unknown'}{reason}")
        if trace.served_by:
            yield _step("served by", trace.served_by)
    if trace.problem:
        yield _step("problem", trace.problem)
    if trace.advice:
        yield _step("try", trace.advice)
    if not trace.problem:
        yield _step("result", "it can be called" if trace.access == "allowed" else "its daemon answers")


def _step(label: str, text: str) -> str:
    return f"{label:<{len(_INDENT)}}{text}"


def _labelled(label: str, texts: list[str]) -> Iterator[str]:
    """Yield one line for each text; only the first has the label."""
    for number, text in enumerate(texts):
        yield _step("" if number else label, text)


def _source(source: TraceSource, now: float) -> Iterator[str]:
    took = "" if source.ms is None else f" ({source.ms} ms)"
    if source.problem:
        yield f"{source.name}{took}: {source.problem}"
    elif not source.records:
        yield f"{source.name}{took}: does not know it"
    for record in source.records:
        yield f"{source.name}{took}: {_record(record, now)}"


def _record(record: TraceRecord, now: float) -> str:
    if not record.signed_ms:
        return f"a record that is not used: {record.problem}"
    age = format_duration(max(0, int(now * 1000) - record.signed_ms))
    state = f"not used as it is: {record.problem}" if record.problem else "verified"
    return f"record with {format_count(record.endpoints, 'endpoint')}, signed {age} ago, {state}"


def _attempt(attempt: TraceAttempt) -> str:
    places = ", ".join([*attempt.addresses, *(f"relay {url}" for url in attempt.relays)]) or "no address"
    return f"endpoint {attempt.endpoint[:10]} at {places}: {attempt.result} after {attempt.ms} ms"
