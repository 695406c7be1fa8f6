from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from ...console.exit_codes import CommandLineError, ExitCode
from ...console.options import AsOption, HomeOption, PeerArgument
from ...console.output import put_json, write_message, write_problem, write_result
from ...console.parameters import Option

_MOST: Final = 10
"""Pings without ``--count``: a direct path is there by then, or does not come."""


def run(
    peer: PeerArgument,
    count: Annotated[
        int | None,
        Option("--count", metavar="N", min=1, help="Number of pings. By default until direct, at most 10."),
    ] = None,
    interval: Annotated[float, Option("--interval", metavar="SECONDS", help="Time between two pings.")] = 1.0,
    timeout: Annotated[float, Option("--timeout", metavar="SECONDS", help="Timeout of each ping.")] = 10.0,
    identity: AsOption = None,
    json: Annotated[bool, Option("--json", help="Print JSON, one answer on each line.")] = False,
    home: HomeOption = None,
) -> None:
    """Measure the round trip to the daemon of a peer, and show the path to it.

    Connects if there is no connection yet. No protocol of the peer is needed. Prints one line for each answer: direct
    with the address, or relayed with the relay. Ends at the first direct answer, or after --count pings. With --json,
    the summary is the last line.
    """
    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    if not interval >= 0:
        raise CommandLineError("--interval must be 0 seconds or more")
    raise SystemExit(_ping(home, identity, peer, count, interval, timeout, json))


def _ping(
    home: Path | None, identity: str | None, peer: str, count: int | None, interval: float, timeout: float, json: bool
) -> ExitCode:
    import asyncio

    from fastn_p2p_client.client import Client
    from fastn_p2p_client.errors import (
        ConnectionLost,
        DeadlineExceeded,
        P2PError,
        PeerOffline,
        PeerUnknown,
        PeerUnreachable,
    )
    from fastn_p2p_client.ipc.messages import PingPeer, PingReply

    from ...console.formatting import format_latency
    from ..error_report import error_json

    # The last two are no news for people who ping again, and a line like any other for a program.
    outcomes = PeerUnreachable, DeadlineExceeded, ConnectionLost, *((PeerUnknown, PeerOffline) if json else ())
    answers: list[PingReply] = []
    sent = 0

    def show_answer(answer: PingReply) -> None:
        if json:
            put_json({name: getattr(answer, name) for name in answer.__struct_fields__})
            return
        place = "this daemon" if answer.path == "local" else f"{answer.path} {answer.address}".strip()
        write_result(f"{peer if len(peer) <= 64 else answer.id52}: {place}, {format_latency(answer.rtt_ms)} ms")

    def show_error(error: P2PError) -> None:
        if json:
            put_json(error_json(error))
        else:
            write_problem(f"no answer: {error}")

    async def send_pings() -> P2PError | None:
        nonlocal sent
        last: P2PError | None = None
        async with Client(home, program="fastn-p2p ping") as client:
            for number in range(count or _MOST):
                if number:
                    await asyncio.sleep(interval)
                sent += 1
                try:
                    answer = await client.control(
                        PingPeer(identity or "", peer, int(timeout * 1000)), timeout=timeout + 5.0
                    )
                except outcomes as error:
                    last = error
                    show_error(error)
                    if count is None:
                        break
                    continue
                answers.append(answer)
                show_answer(answer)
                if count is None and answer.path in ("direct", "local"):
                    break
        return last

    last = asyncio.run(send_pings())
    times = [each.rtt_ms for each in answers]
    summary = {
        "sent": sent,
        "answered": len(answers),
        "path": answers[-1].path if answers else "",
        "min_ms": min(times, default=None),
        "mean_ms": sum(times) / len(times) if times else None,
        "max_ms": max(times, default=None),
    }
    if json:
        put_json({"summary": summary})
    elif times:
        mean = sum(times) / len(times)
        write_message(
            f"{sent} sent, {len(times)} answered; min {format_latency(min(times))} ms, "
            f"mean {format_latency(mean)} ms, max {format_latency(max(times))} ms"
        )
        if answers[-1].path == "relayed":
            write_message("There is no direct path so far. See what blocks it: fastn-p2p netcheck")
    if answers:
        return ExitCode.OK
    from ...console.exit_codes import EXITS

    if not json:
        write_problem(f"{sent} sent, none answered. See which step fails: fastn-p2p explain {peer[:64]}")
    return EXITS[last.code] if last is not None else ExitCode.TIMEOUT
